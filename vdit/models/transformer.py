"""SpacetimeTransformer: one stream of caption tokens and patches, conditioned on a diffusion time per patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from vdit.batch import PackedBatch
from vdit.config import TIME_FEATURES, ModelConfig
from vdit.data import Interface
from vdit.models.attention.attention import attention
from vdit.models.attention.context import SAVED
from vdit.models.feed_forward import feed_forward
from vdit.models.memory import apart, optimization_barrier, recomputed
from vdit.models.rotary import POSITION_FEATURES, position_features, rotary_table, rotate
from vdit.models.weights import GATHERED, product, use, weight
from vdit.parallel.mesh import STATE, platform
from vdit.parallel.rowwise import rowwise, take

INPUT = "block_input"
"""Name of a block's input, for remat policies."""

UNROLLED = 3
"""Blocks, at most, that are not a loop on a CPU: a loop copies what it hands from one to the next, which takes as long
as a small block; a longer program takes longer to compile."""


def rms_norm(x_BLD: jax.Array) -> jax.Array:
    """Root-mean-square normalisation without gain (Zhang & Sennrich 2019); statistics in float32 or wider."""
    return (x_BLD * rms_factor(x_BLD)).astype(x_BLD.dtype)


def rms_factor(x_BLD: jax.Array) -> jax.Array:
    """One over the root mean square of every token, factor_BL1."""
    wide = x_BLD.astype(jnp.promote_types(x_BLD.dtype, jnp.float32))
    return jax.lax.rsqrt(jnp.mean(wide**2, -1, keepdims=True) + 1e-6)


@recomputed
def modulated(
    x_BLD: jax.Array, shift_BLD: jax.Array, scale_BLD: jax.Array, own_shift_D: jax.Array, own_scale_D: jax.Array
) -> jax.Array:
    """Tokens normalised, scaled and shifted, by what all blocks share and by a block's own (adaLN-single)."""
    return rms_norm(x_BLD) * (1 + (scale_BLD + own_scale_D)) + (shift_BLD + own_shift_D)


@recomputed
def gated(x_BLD: jax.Array, added_BLD: jax.Array, gate_BLD: jax.Array, own_gate_D: jax.Array) -> jax.Array:
    """Tokens with a part's output added."""
    return x_BLD + (1 + (gate_BLD + own_gate_D)) * added_BLD


@recomputed
def apply_qk_norm_rope(x_BHLK: jax.Array, cos_BLK: jax.Array, sin_BLK: jax.Array, gain_K: jax.Array) -> jax.Array:
    """Normalised and rotated q or k; the factor is the token's alone, so the rotation need not wait for it."""
    factor_BHLK = apart(jnp.broadcast_to(rms_factor(x_BHLK), x_BHLK.shape))
    return (factor_BHLK * rotate(x_BHLK, (cos_BLK, sin_BLK), gain_K)).astype(x_BHLK.dtype)


def remat(block: Callable[..., Any], config: ModelConfig) -> Callable[..., Any]:
    """The block, keeping for the backward pass what config.remat and config.keep_weights say."""
    if config.remat == "none":
        return block
    policies, weights = jax.checkpoint_policies, [GATHERED] * config.keep_weights
    if config.remat == "offload":
        kept = policies.save_and_offload_only_these_names(
            names_which_can_be_saved=weights,
            names_which_can_be_offloaded=[INPUT, SAVED],
            offload_src="device",
            offload_dst="pinned_host",
        )
        named = lambda x, state: block(checkpoint_name(x, INPUT), state)  # noqa: E731
        return jax.checkpoint(named, policy=kept)
    kept = policies.save_only_these_names(*weights, *[SAVED] * (config.remat == "attention"))
    return jax.checkpoint(block, policy=kept)


def unrolled(config: ModelConfig) -> bool:
    """Whether the blocks are no loop: few of them, on a CPU, with weights that every device holds."""
    sizes = jax.sharding.get_abstract_mesh().shape
    whole = all(size == 1 for axis, size in sizes.items() if axis != "replica")
    return config.depth <= UNROLLED and platform() == "cpu" and whole


def time_features(times_BK: jax.Array, width: int = TIME_FEATURES) -> jax.Array:
    """Sinusoidal features of times in [0, 1] (DiT), features_BKE with E = width."""
    half = width // 2
    frequency = 1000.0 * np.exp(-np.log(10_000.0) * np.arange(half, dtype=np.float32) / half)
    angle = times_BK[..., None] * frequency
    return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


class Block(nnx.Module):
    """Attention and feed-forward, each normalised, shifted and scaled before and gated after (adaLN-single)."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        d, h, k, f = config.width, config.heads, config.head_width, config.feed_forward_width
        self.config = config
        self.qkv = weight(rngs, (d, 3, h, k), P(STATE, None, "tensor", None), "matrix", fan_in=d, separate=(1,))
        self.out = weight(rngs, (h, k, d), P("tensor", None, STATE), "matrix", fan_in=d, zero=True)
        self.up = weight(rngs, (d, f), P(STATE, "tensor"), "matrix", fan_in=d)
        self.down = weight(rngs, (f, d), P("tensor", STATE), "matrix", fan_in=f, zero=True)
        self.qk_gain = weight(rngs, (2, k), P(None, None), "vector", fill=1.0)
        self.table = weight(rngs, (6, d), P(None, None), "vector")  # added to the shared modulation

    @jax.named_scope("block")
    def __call__(
        self, x_BLD: jax.Array, modulation: Sequence[jax.Array], rotary: Any, segments_BL: jax.Array
    ) -> jax.Array:
        """Tokens after the block; modulation holds six arrays _BLD, see `SpacetimeTransformer`."""
        config, dtype = self.config, x_BLD.dtype
        tokens = jax.typeof(x_BLD).sharding.spec
        own = self.table[...].astype(dtype)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation

        h_BLD = optimization_barrier(modulated(x_BLD, shift_a, scale_a, own[0], own[1]))
        heads, qkv = P(*tokens[:2], "tensor", None), use(self.qkv, dtype)
        q, k, v = (
            optimization_barrier(product("bld,dhk->blhk", h_BLD, qkv[:, i], heads)).swapaxes(1, 2) for i in range(3)
        )
        q, k = (apply_qk_norm_rope(x, *rotary, self.qk_gain[i]) for i, x in enumerate((q, k)))
        mixed_BHLK = attention(
            q,
            k,
            v,
            segments_BL,
            backend=config.backend(platform()),
            block=config.attention_block,
            context=config.context,
        )
        mixed_BLD = optimization_barrier(product("bhlk,hkd->bld", mixed_BHLK, use(self.out, dtype), tokens))
        x_BLD = gated(x_BLD, mixed_BLD * config.branch_scale, gate_a, own[2])

        h_BLD = optimization_barrier(modulated(x_BLD, shift_f, scale_f, own[3], own[4]))
        with jax.named_scope("feed_forward"):
            added_BLD = optimization_barrier(feed_forward(h_BLD, use(self.up, dtype), use(self.down, dtype)))
        return gated(x_BLD, added_BLD * config.branch_scale, gate_f, own[5])


class SpacetimeTransformer(nnx.Module):
    """Maps noised patches, their times and captions to a prediction for every patch.

    Args:
      config: shape and numerics.
      interface: sizes fixed by the data set.
      rngs: keys of the initial weights.
    """

    def __init__(self, config: ModelConfig, interface: Interface, rngs: nnx.Rngs):
        d, p, e = config.width, interface.patch, interface.text
        self.config, self.interface = config, interface
        self.patch_in = weight(rngs, (p, d), P(None, STATE), "matrix", fan_in=p)
        self.text_in = weight(rngs, (e, d), P(None, STATE), "matrix", fan_in=e)
        self.null_text = weight(rngs, (e,), P(None), "vector")
        self.time_in = weight(rngs, (TIME_FEATURES, d), P(None, STATE), "matrix", fan_in=TIME_FEATURES)
        self.modulation = weight(rngs, (d, 6 * d), P(STATE, None), "matrix", fan_in=d, zero=True)
        self.text_modulation = weight(rngs, (6 * d,), P(None), "vector")
        self.position_in = weight(rngs, (POSITION_FEATURES, d), P(None, STATE), "matrix", fan_in=POSITION_FEATURES)
        self.patch_bias = weight(rngs, (d,), P(None), "vector")
        self.text_bias = weight(rngs, (d,), P(None), "vector")
        self.final = weight(rngs, (d, 2 * d), P(STATE, None), "matrix", fan_in=d, zero=True)
        self.out = weight(rngs, (d, p), P(STATE, None), "output", fan_in=d, zero=True)
        self.out_bias = weight(rngs, (p,), P(None), "vector")
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
        """Predicts the clean patch or the velocity (config.prediction) for every patch slot.

        Args:
          noised_BLP: patches, noised by their own time, about unit scale.
          times_BK: the distinct times of each row, in [0, 1]; 0 is clean.
          time_index_BL: which of them a slot has; of no meaning for captions.
          batch: positions, segments and captions.
          null_BN: True for examples whose caption is replaced by the null features.

        Returns:
          prediction_BLP, float32; of no meaning outside patches.
        """
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        x_BLD, hidden_BKD = self.stream(noised_BLP, times_BK, time_index_BL, batch, null_BN)
        tokens = jax.typeof(noised_BLP).sharding.spec
        rows = P(tokens[0], None, None)
        final_BKD = jnp.einsum("bkd,de->bke", hidden_BKD, use(self.final, dtype), out_sharding=rows)
        shift, gain = jnp.split(take(final_BKD, time_index_BL), 2, axis=-1)
        x_BLD = rms_norm(x_BLD) * (1 + gain) + shift
        scale = config.base_width / config.width  # muP: the output layer's sum grows with width
        out_BLP = product("bld,dp->blp", x_BLD * scale, use(self.out, dtype), tokens)
        return out_BLP.astype(jnp.promote_types(dtype, jnp.float32)) + self.out_bias[...]

    def stream(
        self,
        noised_BLP: jax.Array,
        times_BK: jax.Array,
        time_index_BL: jax.Array,
        batch: PackedBatch,
        null_BN: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The tokens after the last block, x_BLD, and the features of the times, hidden_BKD; arguments as of a call."""
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        tokens = jax.typeof(noised_BLP).sharding.spec
        rows = P(tokens[0], None, None)
        text_BL = batch.text_index_BL >= 0

        x_BLD = product("blp,pd->bld", noised_BLP.astype(dtype), use(self.patch_in, dtype), tokens)
        place_BLE = position_features(batch.positions_BL3).astype(dtype)
        x_BLD += product("ble,ed->bld", place_BLE, use(self.position_in, dtype), tokens)
        x_BLD = jnp.where(
            text_BL[..., None], self._captions(batch, null_BN), x_BLD + self.patch_bias[...].astype(dtype)
        )

        features = time_features(times_BK).astype(dtype)
        hidden = jax.nn.silu(jnp.einsum("bke,ed->bkd", features, use(self.time_in, dtype), out_sharding=rows))
        shared = jnp.einsum("bkd,de->bke", hidden, use(self.modulation, dtype), out_sharding=rows)
        caption = jnp.broadcast_to(
            self.text_modulation[...].astype(dtype), (shared.shape[0], 1, shared.shape[2]), out_sharding=rows
        )
        modulation_BKD = jnp.concatenate([shared, caption], axis=1)
        time_BL = jnp.where(text_BL, times_BK.shape[1], time_index_BL)
        modulation = [take(part_BKD, time_BL) for part_BKD in jnp.split(modulation_BKD, 6, axis=-1)]
        rotary = rotary_table(batch.positions_BL3, config.head_width)

        graph, stacked = nnx.split(self.blocks)

        def block(x: jax.Array, state: Any) -> tuple[jax.Array, None]:
            return nnx.merge(graph, state)(x, modulation, rotary, batch.segments_BL), None

        return jax.lax.scan(remat(block, config), x_BLD, stacked, unroll=unrolled(config))[0], hidden

    def _captions(self, batch: PackedBatch, null_BN: jax.Array) -> jax.Array:
        """Projected caption features in every slot that holds a caption token, tokens_BLD."""
        dtype = jnp.dtype(self.config.dtype)
        projection = use(self.text_in, dtype)
        rows = jax.typeof(batch.text_BME).sharding.spec
        text_BMD = jnp.einsum("bme,ed->bmd", batch.text_BME.astype(dtype), projection, out_sharding=rows)
        null_D = jnp.einsum("e,ed->d", self.null_text[...].astype(dtype), projection)
        null_BL = rowwise(_of_segment, null_BN, batch.segments_BL)
        text_BLD = take(text_BMD, jnp.maximum(batch.text_index_BL, 0))
        return jnp.where(null_BL[..., None], null_D, text_BLD) + self.text_bias[...].astype(dtype)


def _of_segment(value_BN: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """The value of each slot's example (padding gets that of the first)."""
    return jnp.take_along_axis(value_BN, jnp.maximum(segments_BL - 1, 0), axis=1)


EMBEDDINGS = ("patch_in", "text_in", "text_mid", "null_text", "position_in", "image", "out", "out_bias")
"""Parameters outside the blocks that N leaves out."""


def parameter_counts(params: Any) -> tuple[int, int]:
    """(N, all): N leaves out the input, text and output projections; steps of int8 weights are no parameters."""
    total = body = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if len(path) > 1 and getattr(path[-2], "key", "") == "step":
            continue
        size = int(np.prod(leaf.shape))
        total += size
        if path[0].key not in EMBEDDINGS:
            body += size
    return body, total
