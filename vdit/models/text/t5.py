"""T5 and UMT5 encoders (Raffel et al. 2020, arXiv:1910.10683; Chung et al. 2023, arXiv:2304.09151), inference only.

The weights of XXL encoders do not fit one chip together with a video model: heads and feed-forward units are sharded
over the axes fsdp and tensor of the mesh, and are never gathered.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tokenizers import Tokenizer

from vdit.errors import UserError
from vdit.io.files import parse_json
from vdit.io.weights.hub import find_weights, weights_hash
from vdit.io.weights.safetensors import open_tensors, weight_files
from vdit.models.text.token_encoder import TokenEncoder

MAX_TOKENS = 512
UNITS = ("fsdp", "tensor")
"""Mesh axes over which heads and feed-forward units are sharded."""


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes of an encoder.

    Attributes:
      vocabulary, width, layers, heads, head_width, feed_forward: V, D, N, H, K and F.
      buckets, farthest: of relative positions; all from `farthest` tokens on share the last bucket.
      gated: feed-forward gelu(x a) * (x b) (T5 1.1, UMT5) instead of relu(x a) (T5 1.0).
      bias_per_layer: every layer has its own position bias (UMT5) instead of all sharing the first's (T5).
      epsilon: of the normalisation.
    """

    vocabulary: int
    width: int
    layers: int
    heads: int
    head_width: int
    feed_forward: int
    buckets: int = 32
    farthest: int = 128
    gated: bool = True
    bias_per_layer: bool = False
    epsilon: float = 1e-6

    @classmethod
    def read(cls, path: Path) -> T5Config:
        """From a published config.json.

        Raises:
          UserError: if the file is missing, or not of a T5 or UMT5 with a feed-forward that is known here.
        """
        try:
            values = parse_json(path.read_bytes(), path)
            kind = values["model_type"]
            projection = values.get("feed_forward_proj", "relu")
            if kind not in ("t5", "umt5") or projection not in ("relu", "gated-gelu"):
                raise ValueError(f"model_type {kind!r} with feed_forward_proj {projection!r}")
            return cls(
                vocabulary=values["vocab_size"],
                width=values["d_model"],
                layers=values["num_layers"],
                heads=values["num_heads"],
                head_width=values["d_kv"],
                feed_forward=values["d_ff"],
                buckets=values.get("relative_attention_num_buckets", 32),
                farthest=values.get("relative_attention_max_distance", 128),
                gated=projection == "gated-gelu",
                bias_per_layer=kind == "umt5",
                epsilon=values.get("layer_norm_epsilon", 1e-6),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the config of a T5 or UMT5 encoder ({error!r})") from error


@dataclasses.dataclass(frozen=True)
class _Weight:
    """A weight: its shape here, its partition spec, and the published matrix (out, in) or vector that fills it."""

    shape: tuple[int, ...]
    spec: P
    published: str
    transposed: bool = True


def _weights(config: T5Config) -> dict[str, _Weight]:
    """The weights of the whole encoder; "{}" in a published name stands for the layer, the leading axis here."""
    d, h, k, f, n = config.width, config.heads, config.head_width, config.feed_forward, config.layers
    first, second = "encoder.block.{}.layer.0.", "encoder.block.{}.layer.1."
    attention, hidden = first + "SelfAttention.", second + "DenseReluDense."
    bias = attention + "relative_attention_bias.weight"
    heads_in, heads_out = P(None, None, UNITS, None), P(None, UNITS, None, None)
    weights = {
        "embed": _Weight((config.vocabulary, d), P(None, None), "shared.weight", False),
        "final_norm": _Weight((d,), P(None), "encoder.final_layer_norm.weight", False),
        "norm_a": _Weight((n, d), P(None, None), first + "layer_norm.weight", False),
        "q": _Weight((n, d, h, k), heads_in, attention + "q.weight"),
        "k": _Weight((n, d, h, k), heads_in, attention + "k.weight"),
        "v": _Weight((n, d, h, k), heads_in, attention + "v.weight"),
        "o": _Weight((n, h, k, d), heads_out, attention + "o.weight"),
        "norm_f": _Weight((n, d), P(None, None), second + "layer_norm.weight", False),
        "up": _Weight((n, d, f), P(None, None, UNITS), hidden + ("wi_0.weight" if config.gated else "wi.weight")),
        "down": _Weight((n, f, d), P(None, UNITS, None), hidden + "wo.weight"),
    }
    if config.gated:
        weights["gate"] = _Weight((n, d, f), P(None, None, UNITS), hidden + "wi_1.weight")
    if config.bias_per_layer:
        weights["bias"] = _Weight((n, config.buckets, h), P(None, None, UNITS), bias, False)
    else:
        shape = (config.buckets, h)
        weights["bias"] = _Weight(shape, P(None, UNITS), bias.format(0), False)
    return weights


UNUSED = ("encoder.embed_tokens.weight",)  # the same as shared.weight, where files hold both


def read_weights(
    path: str | os.PathLike[str], config: T5Config, mesh: jax.sharding.Mesh, dtype: Any
) -> dict[str, jax.Array]:
    """The weights of published safetensors, placed on the mesh one after another.

    Raises:
      UserError: if the files do not hold exactly this encoder's tensors, or the mesh does not divide its heads.
    """
    units = mesh.shape["fsdp"] * mesh.shape["tensor"]
    for name, size in (("heads", config.heads), ("feed-forward units", config.feed_forward)):
        if size % units:
            raise UserError(
                f"fsdp x tensor = {units} devices do not divide the {size} {name} of {path}; take a divisor"
            )
    weights = _weights(config)
    shapes = {name: _published_shape(weight) for weight in weights.values() for name in _names(weight)}
    placed = {}
    with open_tensors(path, shapes, UNUSED) as get:
        for name, weight in weights.items():
            arrays = [get(published) for published in _names(weight)]
            value = np.stack([a.T if weight.transposed else a for a in arrays]).astype(dtype).reshape(weight.shape)
            placed[name] = jax.device_put(value, NamedSharding(mesh, weight.spec))
    return placed


def _names(weight: _Weight) -> list[str]:
    if "{}" not in weight.published:
        return [weight.published]
    return [weight.published.format(layer) for layer in range(weight.shape[0])]


def _published_shape(weight: _Weight) -> tuple[int, ...]:
    """Shape of one published tensor: heads folded, matrices (out, in)."""
    shape = weight.shape[1:] if "{}" in weight.published else weight.shape
    if weight.published.endswith(("q.weight", "k.weight", "v.weight")):
        return (shape[1] * shape[2], shape[0])
    if weight.published.endswith("o.weight") and len(shape) == 3:
        return (shape[2], shape[0] * shape[1])
    return shape[::-1] if weight.transposed else shape


def buckets_QM(length: int, config: T5Config) -> np.ndarray:
    """Bucket of every key position as seen from every query position: half of them for either direction.

    Within a direction the nearest positions have a bucket each, farther ones share logarithmically spaced ones.
    """
    distance = np.arange(length)[None] - np.arange(length)[:, None]
    half = config.buckets // 2
    exact = half // 2
    steps = np.abs(distance)
    # float32, as published: at a boundary the rounding decides.
    scale = np.log(np.maximum(steps, 1).astype(np.float32) / exact) / np.float32(np.log(config.farthest / exact))
    far = np.minimum(exact + (scale * (half - exact)).astype(np.int32), half - 1)
    return (half * (distance > 0) + np.where(steps < exact, steps, far)).astype(np.int32)


def _norm(x_BMD: jax.Array, gain_D: jax.Array, epsilon: float) -> jax.Array:
    wide = x_BMD.astype(jnp.float32)
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + epsilon)
    return wide.astype(x_BMD.dtype) * gain_D


def encode(weights: Mapping[str, jax.Array], ids_BM: jax.Array, lengths_B: jax.Array, config: T5Config) -> jax.Array:
    """Features of every token, on the explicit mesh of the weights.

    Args:
      weights: of `read_weights`.
      ids_BM: int32 token ids, padded behind each text.
      lengths_B: int32 tokens of each text; keys from there on are not attended to.
      config: sizes.

    Returns:
      Float32 (B, M, D); meaningless behind each text's end.
    """
    stacked = {name: value for name, value in weights.items() if name not in ("embed", "final_norm")}
    shared = None if config.bias_per_layer else stacked.pop("bias")
    bucket_QM = buckets_QM(ids_BM.shape[1], config)
    key_BM = jnp.arange(ids_BM.shape[1]) < lengths_B[:, None]
    tokens, heads = P(None, None, None), P(None, None, UNITS, None)

    def layer(x_BMD: jax.Array, w: dict[str, jax.Array]) -> tuple[jax.Array, None]:
        h_BMD = _norm(x_BMD, w["norm_a"], config.epsilon)
        q, k, v = (jnp.einsum("bmd,dhk->bmhk", h_BMD, w[name], out_sharding=heads) for name in ("q", "k", "v"))
        table = w["bias"] if shared is None else shared
        bias_QMH = table.at[bucket_QM].get(out_sharding=P(None, None, UNITS))
        score_BHQM = jnp.einsum("bqhk,bmhk->bhqm", q, k).astype(jnp.float32)  # T5 does not scale by sqrt(K)
        score_BHQM += bias_QMH.transpose(2, 0, 1).astype(jnp.float32)
        score_BHQM = jnp.where(key_BM[:, None, None], score_BHQM, -1e30)
        weight_BHQM = jax.nn.softmax(score_BHQM, axis=-1).astype(x_BMD.dtype)
        mixed_BQHK = jnp.einsum("bhqm,bmhk->bqhk", weight_BHQM, v)
        x_BMD += jnp.einsum("bqhk,hkd->bqd", mixed_BQHK, w["o"], out_sharding=tokens)

        h_BMD = _norm(x_BMD, w["norm_f"], config.epsilon)
        wide = P(None, None, UNITS)
        hidden_BMF = jnp.einsum("bmd,df->bmf", h_BMD, w["up"], out_sharding=wide)
        if config.gated:
            gate_BMF = jnp.einsum("bmd,df->bmf", h_BMD, w["gate"], out_sharding=wide)
            hidden_BMF = jax.nn.gelu(hidden_BMF, approximate=True) * gate_BMF
        else:
            hidden_BMF = jax.nn.relu(hidden_BMF)
        return x_BMD + jnp.einsum("bmf,fd->bmd", hidden_BMF, w["down"], out_sharding=tokens), None

    x_BMD = weights["embed"].at[ids_BM].get(out_sharding=tokens)
    x_BMD, _ = jax.lax.scan(layer, x_BMD, stacked)
    return _norm(x_BMD, weights["final_norm"], config.epsilon).astype(jnp.float32)


def load_t5(kind: str, where: str, mesh: jax.sharding.Mesh, dtype: Any = None) -> TokenEncoder:
    """An encoder with published weights.

    Args:
      kind: "t5" or "umt5", which the weights must be.
      where: a folder in the published (Hugging Face) layout: config.json, safetensors and tokenizer.json, or the
        folders text_encoder/ and tokenizer/ of a whole pipeline; or a hub id.
      mesh: explicit mesh over which its weights are sharded.
      dtype: of weights and activations; default float32 on CPU, bfloat16 elsewhere.

    Raises:
      UserError: if files are missing or do not fit each other.
    """
    root = find_weights(where, ("*.json", "*.safetensors", "*/*.json", "*/*.safetensors"))
    folder = root / "text_encoder" if (root / "text_encoder").is_dir() else root
    config = T5Config.read(folder / "config.json")
    if (found_kind := "umt5" if config.bias_per_layer else "t5") != kind:
        raise UserError(f"{where} holds a {found_kind} encoder, not {kind}; name it {found_kind}:{where}")
    dtype = jnp.dtype(dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    weights = read_weights(folder, config, mesh, dtype)
    files = [path / "tokenizer.json" for path in (folder, root / "tokenizer", root)]
    found = next((file for file in files if file.is_file()), None)
    if found is None:
        raise UserError(f"{root} has no tokenizer.json; save the tokenizer in its fast form next to the weights")
    tokenizer = Tokenizer.from_file(str(found))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)

    @jax.jit
    def apply(weights: dict[str, jax.Array], ids_BM: jax.Array, lengths_B: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
            return encode(weights, ids_BM, lengths_B, config)

    def features(ids_BM: np.ndarray, lengths_B: np.ndarray) -> jax.Array:
        with jax.set_mesh(mesh):
            return apply(weights, ids_BM, lengths_B)

    name = f"{kind}:{where}"
    return TokenEncoder(name, config.width, weights_hash(weight_files(folder)), MAX_TOKENS, tokenizer, features)
