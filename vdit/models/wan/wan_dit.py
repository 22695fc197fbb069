"""The transformer of Wan 2.1 and 2.2 (Wan Team 2025, arXiv:2503.20314) on packed rows.

Attention, rotary turning, patches and samplers are those of SpacetimeTransformer. What differs is the published
architecture: captions are not in the stream, patches attend to them; norms subtract the mean; positions are integers.
For image to video the end of every patch vector is not noised: it says what is known of the clip (`config.condition`).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import PartitionSpec as P

from vdit.batch import PackedBatch
from vdit.config import WAN_TIME_FEATURES, ModelConfig
from vdit.data import Interface
from vdit.models.attention.attention import attention
from vdit.models.attention.cross import cross_attention
from vdit.models.memory import recomputed
from vdit.models.rotary import angle_table, rotate
from vdit.models.transformer import remat, time_features
from vdit.models.wan.wan_image import IMAGE_TOKENS, ImageEmbedder
from vdit.models.weights import product, use, weight
from vdit.parallel.mesh import STATE, platform
from vdit.parallel.rowwise import rowwise, sum_of_segments, take

CAPTION = 512
"""Caption tokens that patches attend to; what a caption leaves of them are tokens whose features are zeros."""

THETA = 10_000.0
EPSILON = 1e-6


@recomputed
def gelu(x: jax.Array) -> jax.Array:
    """GELU by tanh."""
    return jax.nn.gelu(x)


def layer_norm(x_BLD: jax.Array) -> jax.Array:
    """Zero mean and unit variance, without gain; statistics in float32 or wider."""
    wide = x_BLD.astype(jnp.promote_types(x_BLD.dtype, jnp.float32))
    wide -= wide.mean(-1, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + EPSILON)).astype(x_BLD.dtype)


def heads_norm(x_BHLK: jax.Array, gain_HK: jax.Array) -> jax.Array:
    """Root-mean-square normalisation over all heads of a token together."""
    wide = x_BHLK.astype(jnp.promote_types(x_BHLK.dtype, jnp.float32))
    wide *= jax.lax.rsqrt(jnp.mean(wide**2, (-3, -1), keepdims=True) + EPSILON)
    return (wide * gain_HK[:, None]).astype(x_BHLK.dtype)


def rotary_frequencies(head_width: int) -> list[np.ndarray]:
    """Radians per position of every pair of a head, for time, row and column."""
    space = head_width // 6
    pairs = head_width // 2 - 2 * space, space, space
    return [THETA ** -(np.arange(n) / max(n, 1)) for n in pairs]


class Block(nnx.Module):
    """Self-attention, attention to the caption, feed-forward; the first and last shifted, scaled and gated by time."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, h, k, f = config.width, config.heads, config.head_width, config.feed_forward_width
        self.config = config
        self.qkv = weight(rngs, (d, 3, h, k), P(STATE, None, "tensor", None), "matrix", fan_in=d, separate=(1,))
        self.qkv_bias = weight(rngs, (3, h, k), P(None, "tensor", None), "vector")
        self.qk_gain = weight(rngs, (2, h, k), P(None, "tensor", None), "vector", fill=1.0)
        self.out = weight(rngs, (h, k, d), P("tensor", None, STATE), "matrix", fan_in=d)
        self.out_bias = weight(rngs, (d,), P(None), "vector")
        self.text_norm = weight(rngs, (d,), P(None), "vector", fill=1.0)
        self.text_norm_bias = weight(rngs, (d,), P(None), "vector")
        self.text_q = weight(rngs, (d, h, k), P(STATE, "tensor", None), "matrix", fan_in=d)
        self.text_q_bias = weight(rngs, (h, k), P("tensor", None), "vector")
        self.text_kv = weight(rngs, (d, 2, h, k), P(STATE, None, "tensor", None), "matrix", fan_in=d, separate=(1,))
        self.text_kv_bias = weight(rngs, (2, h, k), P(None, "tensor", None), "vector")
        self.text_gain = weight(rngs, (2, h, k), P(None, "tensor", None), "vector", fill=1.0)
        self.text_out = weight(rngs, (h, k, d), P("tensor", None, STATE), "matrix", fan_in=d, zero=True)
        self.text_out_bias = weight(rngs, (d,), P(None), "vector")
        self.up = weight(rngs, (d, f), P(STATE, "tensor"), "matrix", fan_in=d)
        self.up_bias = weight(rngs, (f,), P("tensor"), "vector")
        self.down = weight(rngs, (f, d), P("tensor", STATE), "matrix", fan_in=f)
        self.down_bias = weight(rngs, (d,), P(None), "vector")
        self.table = weight(rngs, (6, d), P(None, None), "vector")  # added to the shared modulation
        if config.image:
            kv, specs = (d, 2, h, k), P(STATE, None, "tensor", None)
            self.image_kv = weight(rngs, kv, specs, "matrix", fan_in=d, separate=(1,))
            self.image_kv_bias = weight(rngs, (2, h, k), P(None, "tensor", None), "vector")
            self.image_gain = weight(rngs, (h, k), P("tensor", None), "vector", fill=1.0)

    @jax.named_scope("block")
    def __call__(self, x_BLD: jax.Array, text: Any, modulation_BKD: jax.Array, layout: Any) -> jax.Array:
        text_BMD, padding_D = text
        config, dtype = self.config, x_BLD.dtype
        tokens, rows = (jax.typeof(x).sharding.spec for x in (x_BLD, text_BMD))
        heads, words = (P(spec[0], "tensor", spec[1], None) for spec in (tokens, rows))
        options: dict[str, Any] = {"backend": config.backend(platform()), "block": config.attention_block}
        table_BKD = modulation_BKD + self.table[...].reshape(-1).astype(dtype)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = jnp.split(take(table_BKD, layout["time_BL"]), 6, axis=-1)

        h_BLD = layer_norm(x_BLD) * (1 + scale_a) + shift_a
        qkv = product("bld,dchk->cbhlk", h_BLD, use(self.qkv, dtype), P(None, *heads))
        q, k, v = (qkv[i] + self.qkv_bias[...][i, :, None].astype(dtype) for i in range(3))
        rotated = (rotate(heads_norm(x, self.qk_gain[...][i]), layout["rotary"]) for i, x in enumerate((q, k)))
        q, k = (x.astype(dtype) for x in rotated)
        mixed_BHLK = attention(q, k, v, layout["runs_BL"], context=config.context, **options)
        x_BLD += gate_a * self._project(mixed_BHLK, self.out, self.out_bias, tokens)

        h_BLD = layer_norm(x_BLD) * self.text_norm[...].astype(dtype) + self.text_norm_bias[...].astype(dtype)
        q = product("bld,dhk->bhlk", h_BLD, use(self.text_q, dtype), heads)
        q = heads_norm(q + self.text_q_bias[...][:, None].astype(dtype), self.text_gain[...][0])
        k, v, padding_2HK = self._keys(text_BMD, padding_D, words)
        if config.image:
            k, v = self._image_keys(text_BMD, (k, v), layout["image_BM"], words)
        mixed_BHLK = cross_attention(q, k, v, padding_2HK, layout["captions"], **options)
        if config.image:
            mixed_BHLK += cross_attention(q, k, v, padding_2HK, layout["images"], **options)
        x_BLD += self._project(mixed_BHLK, self.text_out, self.text_out_bias, tokens)

        h_BLD = layer_norm(x_BLD) * (1 + scale_f) + shift_f
        hidden_BLF = product("bld,df->blf", h_BLD, use(self.up, dtype), P(*tokens[:2], "tensor"))
        hidden_BLF = gelu(hidden_BLF + self.up_bias[...].astype(dtype))
        fed_BLD = product("blf,fd->bld", hidden_BLF, use(self.down, dtype), tokens)
        return x_BLD + gate_f * (fed_BLD + self.down_bias[...].astype(dtype))

    def _keys(self, text_BMD: jax.Array, padding_D: jax.Array, spec: P) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Keys and values of caption tokens, BHMK each, and of a padding token, 2HK."""
        dtype, matrix = text_BMD.dtype, use(self.text_kv, text_BMD.dtype)
        kv_2BHMK = product("bmd,dchk->cbhmk", text_BMD, matrix, P(None, *spec))
        kv_2HK = product("d,dchk->chk", padding_D, matrix, P(None, spec[1], None))
        bias_2H1K, gain_HK = self.text_kv_bias[...][:, :, None].astype(dtype), self.text_gain[...][1]
        k, v = (kv_2BHMK[i] + bias_2H1K[i] for i in range(2))
        padding_k, padding_v = (kv_2HK[i][:, None] + bias_2H1K[i] for i in range(2))
        padding_2HK = jnp.stack([heads_norm(padding_k, gain_HK), padding_v])[:, :, 0]
        return heads_norm(k, gain_HK), v, padding_2HK

    def _image_keys(self, text_BMD: jax.Array, of_words: Any, image_BM: jax.Array, spec: P) -> list[jax.Array]:
        """Keys and values of caption tokens, BHMK each, with those of the image's tokens in their places."""
        dtype = text_BMD.dtype
        kv_2BHMK = product("bmd,dchk->cbhmk", text_BMD, use(self.image_kv, dtype), P(None, *spec))
        k, v = (kv_2BHMK[i] + self.image_kv_bias[...][i, :, None].astype(dtype) for i in range(2))
        own = heads_norm(k, self.image_gain[...]), v
        return [jnp.where(image_BM[:, None, :, None], *pair) for pair in zip(own, of_words, strict=True)]

    def _project(self, mixed_BHLK: jax.Array, matrix: nnx.Param, bias: nnx.Param, tokens: P) -> jax.Array:
        dtype = mixed_BHLK.dtype
        out_BLD = product("bhlk,hkd->bld", mixed_BHLK, use(matrix, dtype), tokens)
        return out_BLD + bias[...].astype(dtype)


class WanTransformer(nnx.Module):
    """Maps noised patches, their times and captions to the velocity of every patch; see SpacetimeTransformer.

    A dropped caption (`null_BN`) has no words: all that is attended to is padding, and the image if there is one.
    With config.condition noised patches and velocities are shorter than the batch's patch vectors, whose end they lack.

    Args:
      config: shape and numerics.
      interface: sizes fixed by the data set.
      rngs: keys of the initial weights.
    """

    def __init__(self, config: ModelConfig, interface: Interface, rngs: nnx.Rngs):
        d, p, e = config.width, interface.patch, interface.text
        self.config, self.interface = config, interface
        self.patch_in = weight(rngs, (p, d), P(None, STATE), "matrix", fan_in=p)
        self.patch_bias = weight(rngs, (d,), P(None), "vector")
        self.text_in = weight(rngs, (e, d), P(None, STATE), "matrix", fan_in=e)
        self.text_bias = weight(rngs, (d,), P(None), "vector")
        self.text_mid = weight(rngs, (d, d), P(STATE, None), "matrix", fan_in=d)
        self.text_mid_bias = weight(rngs, (d,), P(None), "vector")
        self.time_in = weight(rngs, (WAN_TIME_FEATURES, d), P(None, STATE), "matrix", fan_in=WAN_TIME_FEATURES)
        self.time_bias = weight(rngs, (d,), P(None), "vector")
        self.time_mid = weight(rngs, (d, d), P(STATE, None), "matrix", fan_in=d)
        self.time_mid_bias = weight(rngs, (d,), P(None), "vector")
        self.modulation = weight(rngs, (d, 6 * d), P(STATE, None), "matrix", fan_in=d, zero=True)
        self.modulation_bias = weight(rngs, (6 * d,), P(None), "vector")
        self.final = weight(rngs, (2, d), P(None, None), "vector")
        generated = p - config.condition
        self.out = weight(rngs, (d, generated), P(STATE, None), "output", fan_in=d, zero=True)
        self.out_bias = weight(rngs, (generated,), P(None), "vector")
        if config.image:
            self.image = ImageEmbedder(config.image, d, rngs)
        stack = nnx.vmap(lambda key: Block(config, nnx.Rngs(key)), transform_metadata={nnx.PARTITION_NAME: None})
        self.blocks = stack(jax.random.split(rngs.params(), config.depth))

    def __call__(
        self,
        noised_BLP: jax.Array,
        times_BK: jax.Array,
        time_index_BL: jax.Array,
        batch: PackedBatch,
        null_BN: jax.Array,
    ) -> jax.Array:
        """Predicts the velocity for every patch slot; arguments and result as those of SpacetimeTransformer."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        tokens, rows = (jax.typeof(x).sharding.spec for x in (noised_BLP, batch.text_BME))

        def linear(x: jax.Array, matrix: nnx.Param, bias: nnx.Param, spec: P = rows) -> jax.Array:
            out = jnp.einsum("bld,de->ble", x.astype(dtype), use(matrix, dtype), out_sharding=spec)
            return out + bias[...].astype(dtype)

        layout = _layout(batch, null_BN, IMAGE_TOKENS if config.image else 0)
        text_BME = batch.text_BME * layout["kept_BM"][..., None]
        text_BMD = linear(
            jax.nn.gelu(linear(text_BME, self.text_in, self.text_bias)), self.text_mid, self.text_mid_bias
        )
        if config.image:
            image_BMD = self.image(batch.text_BME[..., : config.image].astype(dtype))
            text_BMD = jnp.where(layout["image_BM"][..., None], image_BMD, text_BMD)
        padding_D = jax.nn.gelu(self.text_bias[...].astype(dtype))  # what a token without features becomes
        padding_D = jnp.einsum("d,de->e", padding_D, use(self.text_mid, dtype)) + self.text_mid_bias[...].astype(dtype)
        time_BKD = jax.nn.silu(linear(time_features(times_BK, WAN_TIME_FEATURES), self.time_in, self.time_bias))
        time_BKD = linear(time_BKD, self.time_mid, self.time_mid_bias)
        modulation_BKD = linear(jax.nn.silu(time_BKD), self.modulation, self.modulation_bias)
        layout["time_BL"] = time_index_BL
        layout["rotary"] = angle_table(layout["positions_BL3"], rotary_frequencies(config.head_width))

        graph, stacked = nnx.split(self.blocks)

        def block(x: jax.Array, state: Any) -> tuple[jax.Array, None]:
            return nnx.merge(graph, state)(x, (text_BMD, padding_D), modulation_BKD, layout), None

        if config.condition:
            known_BLP = batch.patches_BLP[..., -config.condition :].astype(noised_BLP.dtype)
            noised_BLP = jnp.concatenate([noised_BLP, known_BLP], -1)
        x_BLD = linear(noised_BLP, self.patch_in, self.patch_bias, tokens)
        x_BLD, _ = jax.lax.scan(remat(block, config), x_BLD, stacked)

        final_BKD = jnp.concatenate([time_BKD, time_BKD], -1) + self.final[...].reshape(-1).astype(dtype)
        shift, scale = jnp.split(take(final_BKD, time_index_BL), 2, axis=-1)
        x_BLD = layer_norm(x_BLD) * (1 + scale) + shift
        x_BLD *= (
            config.base_width / config.width
        )  # muP: the output layer's sum grows with width; 1 for published weights
        return linear(x_BLD, self.out, self.out_bias, tokens).astype(jnp.promote_types(dtype, jnp.float32))


def _layout(batch: PackedBatch, null_BN: jax.Array, images: int) -> dict[str, Any]:
    """Where every slot stands.

    Args:
      batch, null_BN: see `WanTransformer`.
      images: how many of a caption's tokens, the first ones, are of an image.

    Returns:
      runs_BL: segments with an example's caption and patches apart, counted 1, 2, ... along the row; patches attend
        within theirs.
      positions_BL3: group, row and column of a patch.
      captions: see `cross_attention`; images: the same for the tokens of images, image_BM, of which none is padding.
      kept_BM: 0 for the tokens of a dropped caption, which are padding like all others.
    """
    text_BL = (batch.text_index_BL >= 0).astype(jnp.int32)
    words_BN = sum_of_segments(text_BL, batch.segments_BL, null_BN.shape[1])
    tokens = np.arange(batch.text_BME.shape[1])

    def local(batch: PackedBatch, text_BL: jax.Array, words_BN: jax.Array, null_BN: jax.Array) -> dict[str, Any]:
        captioned_BN = jnp.cumsum(words_BN > 0, axis=1)  # examples with a caption, up to and including this one
        end_BN = jnp.cumsum(words_BN, axis=1)
        area_BN = jnp.maximum(batch.grid_BN3[..., 1] * batch.grid_BN3[..., 2], 1)

        def of_slot(value_BN: jax.Array) -> jax.Array:
            return jnp.take_along_axis(value_BN, jnp.maximum(batch.segments_BL - 1, 0), axis=1)

        example_BM = (tokens[:, None] >= end_BN[:, None]).sum(-1)
        null_BM = jnp.take_along_axis(null_BN, jnp.minimum(example_BM, null_BN.shape[1] - 1), axis=1)
        start_BM = jnp.take_along_axis(end_BN - words_BN, jnp.minimum(example_BM, null_BN.shape[1] - 1), axis=1)
        image_BM = tokens - start_BM < images
        real_BL, real_BM = batch.segments_BL > 0, tokens < end_BN[:, -1:]
        group_BL = (batch.token_BL // of_slot(area_BN)).astype(jnp.float32)
        segments = batch.segments_BL, jnp.where(real_BM, example_BM + 1, 0)
        if images:  # as if the image were an example of its own before that of the words
            segments = 2 * segments[0], jnp.where(real_BM, 2 * segments[1] - image_BM, 0)
        layout = {
            "runs_BL": jnp.where(real_BL, batch.segments_BL + of_slot(captioned_BN) - text_BL, 0),
            "positions_BL3": jnp.concatenate([group_BL[..., None], batch.positions_BL3[..., 1:]], -1),
            "captions": {
                "segments_BL": segments[0],
                "segments_BM": segments[1],
                "padding_BL": CAPTION - jnp.maximum(of_slot(words_BN) - images, 0),
            },
            "kept_BM": (~null_BM | image_BM).astype(batch.text_BME.dtype),
        }
        if images:
            none_BL = jnp.zeros_like(batch.segments_BL)
            layout["image_BM"] = image_BM
            layout["images"] = {
                "segments_BL": jnp.where(real_BL, segments[0] - 1, 0),
                "segments_BM": segments[1],
                "padding_BL": none_BL,
            }
        return layout

    return rowwise(local, batch, text_BL, words_BN, null_BN)
