"""BERT encoder (Devlin et al. 2018, arXiv:1810.04805), inference only: the network of MiniLM sentence encoders."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from vdit.io.weights.safetensors import read_tensors


@dataclasses.dataclass(frozen=True)
class BertConfig:
    """Sizes of a BERT encoder; the defaults are those of all-MiniLM-L6-v2."""

    vocabulary: int = 30522
    positions: int = 512
    token_types: int = 2
    width: int = 384
    feed_forward: int = 1536
    layers: int = 6
    heads: int = 12
    epsilon: float = 1e-12


class BertLayer(nnx.Module):
    """Self-attention, then a feed-forward layer, each followed by addition and LayerNorm (post-norm)."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        D, F = config.width, config.feed_forward
        self.heads = config.heads
        self.query = nnx.Linear(D, D, rngs=rngs)
        self.key = nnx.Linear(D, D, rngs=rngs)
        self.value = nnx.Linear(D, D, rngs=rngs)
        self.attention_out = nnx.Linear(D, D, rngs=rngs)
        self.attention_norm = nnx.LayerNorm(D, epsilon=config.epsilon, rngs=rngs)
        self.feed_forward_in = nnx.Linear(D, F, rngs=rngs)
        self.feed_forward_out = nnx.Linear(F, D, rngs=rngs)
        self.feed_forward_norm = nnx.LayerNorm(D, epsilon=config.epsilon, rngs=rngs)

    def __call__(self, x_BMD: Array, mask_B11M: Array) -> Array:
        B, M, D = x_BMD.shape
        q_BMHK, k_BMHK, v_BMHK = (
            project(x_BMD).reshape(B, M, self.heads, D // self.heads) for project in (self.query, self.key, self.value)
        )
        attended_BMHK = jax.nn.dot_product_attention(q_BMHK, k_BMHK, v_BMHK, mask=mask_B11M)
        x_BMD = self.attention_norm(x_BMD + self.attention_out(attended_BMHK.reshape(B, M, D)))
        hidden_BMF = jax.nn.gelu(self.feed_forward_in(x_BMD), approximate=False)
        return self.feed_forward_norm(x_BMD + self.feed_forward_out(hidden_BMF))


class Bert(nnx.Module):
    """Token ids to the last hidden state. Weights are small: float32, replicated on every device."""

    def __init__(self, config: BertConfig, rngs: nnx.Rngs):
        D = config.width
        self.words = nnx.Embed(config.vocabulary, D, rngs=rngs)
        self.positions = nnx.Embed(config.positions, D, rngs=rngs)
        self.token_types = nnx.Embed(config.token_types, D, rngs=rngs)
        self.norm = nnx.LayerNorm(D, epsilon=config.epsilon, rngs=rngs)
        self.layers = nnx.List([BertLayer(config, rngs) for _ in range(config.layers)])

    def __call__(self, ids_BM: Array, lengths_B: Array) -> Array:
        """Features of every token.

        Args:
          ids_BM: int32 token ids, padded behind each text with any id.
          lengths_B: int32 tokens of each text; keys from there on are not attended to.

        Returns:
          Float32 (B, M, D); meaningless behind each text's end.
        """
        slot_M = jnp.arange(ids_BM.shape[1])
        mask_B11M = (slot_M < lengths_B[:, None])[:, None, None, :]
        sentence = jnp.zeros((), jnp.int32)  # one sentence at a time: always the first token type
        x_BMD = self.norm(self.words(ids_BM) + self.positions(slot_M) + self.token_types(sentence))
        for layer in self.layers:
            x_BMD = layer(x_BMD, mask_B11M)
        return x_BMD


def load_bert(path: str | os.PathLike[str], config: BertConfig) -> Bert:
    """A Bert with the weights of a safetensors file in the published (Hugging Face BertModel) naming.

    Raises:
      UserError: the file does not hold exactly the tensors of this BERT.
    """
    graph, state = nnx.split(nnx.eval_shape(lambda: Bert(config, nnx.Rngs(0))))  # shapes only: nothing is initialised
    flat = {leaf: variable.get_value() for leaf, variable in nnx.to_flat_state(state)}
    names = {leaf: _published_name(leaf) for leaf in flat}
    # Published matrices of linear layers are (out, in); Flax kernels are (in, out).
    order = {leaf: -1 if leaf[-1] == "kernel" else 1 for leaf in flat}
    shapes = {names[leaf]: value.shape[:: order[leaf]] for leaf, value in flat.items()}
    tensors = read_tensors(path, shapes, unused=_UNUSED)
    arrays = {
        leaf: jnp.asarray((tensors[name].T if order[leaf] < 0 else tensors[name]).astype(np.float32))
        for leaf, name in names.items()
    }
    nnx.replace_by_pure_dict(state, nnx.traversals.unflatten_mapping(arrays))
    return nnx.merge(graph, state)


_UNUSED = ("embeddings.position_ids", "pooler.dense.bias", "pooler.dense.weight")
_LEAVES = {"kernel": "weight", "embedding": "weight", "scale": "weight", "bias": "bias"}
_MODULES = {
    "words": "embeddings.word_embeddings",
    "positions": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "norm": "embeddings.LayerNorm",
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "feed_forward_in": "intermediate.dense",
    "feed_forward_out": "output.dense",
    "feed_forward_norm": "output.LayerNorm",
}


def _published_name(leaf: Sequence[Any]) -> str:
    """("layers", 0, "query", "kernel") -> "encoder.layer.0.attention.self.query.weight"."""
    *layer, module, kind = leaf
    prefix = f"encoder.layer.{layer[1]}." if layer else ""
    return f"{prefix}{_MODULES[str(module)]}.{_LEAVES[str(kind)]}"
