"""T5 and UMT5 encoders against transformers, on random weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

from vdit.config import MeshConfig
from vdit.models.text import t5
from vdit.parallel.mesh import make_mesh

SIZES = {"vocab_size": 100, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 3, "num_heads": 4}
KINDS = {
    "t5 1.0": lambda: T5EncoderModel(T5Config(**SIZES, feed_forward_proj="relu")),
    "t5 1.1": lambda: T5EncoderModel(T5Config(**SIZES, feed_forward_proj="gated-gelu")),
    "umt5": lambda: UMT5EncoderModel(UMT5Config(**SIZES, feed_forward_proj="gated-gelu")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_features_equal_the_published_ones(kind, tmp_path):
    torch.manual_seed(0)
    model = KINDS[kind]().eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(tmp_path)
    lengths = [300, 170]  # far enough for every bucket of positions
    ids = torch.randint(0, 100, (2, 300))
    mask = (torch.arange(300)[None] < torch.tensor(lengths)[:, None]).long()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).last_hidden_state.numpy()

    config = t5.T5Config.read(tmp_path / "config.json")
    mesh = make_mesh(MeshConfig(replica=1, fsdp=4), jax.devices()[:4])
    weights = t5.read_weights(tmp_path, config, mesh, np.float32)
    with jax.set_mesh(mesh):
        found = np.asarray(t5.encode(weights, ids.numpy().astype(np.int32), np.array(lengths, np.int32), config))
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(found[row, :length], expected[row, :length], rtol=0, atol=1e-4)
