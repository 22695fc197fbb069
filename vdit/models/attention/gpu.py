"""Attention on GPU by tokamax, which takes the range of keys that each query sees."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from absl import flags

from vdit.errors import UserError
from vdit.models.attention.context import without_padding

IMPLEMENTATIONS = ("mosaic_gpu", "triton")
"""Tried in this order: Hopper and Blackwell, then any GPU. Both skip key blocks outside the range. cuDNN through
JAX takes a dense mask only, L^2 numbers a row, and is left out."""

MOSAIC_BLOCK = 128
"""Tokens of a block of Mosaic's backward kernel, of which a row has to be made."""


def key_ranges(segments_BL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First key and end of the keys of every query: those of its segment, none for padding. int32 start_BL, end_BL."""
    place_L = jnp.arange(segments_BL.shape[1], dtype=jnp.int32)

    def row(segments_L: jax.Array) -> tuple[jax.Array, jax.Array]:
        ordered_L = jnp.where(segments_L > 0, segments_L, jnp.iinfo(jnp.int32).max)
        start_L, end_L = (jnp.searchsorted(ordered_L, segments_L, side=side) for side in ("left", "right"))
        return jnp.where(segments_L > 0, start_L, place_L), jnp.where(segments_L > 0, end_L, place_L + 1)

    start_BL, end_BL = jax.vmap(row)(segments_BL)
    return start_BL.astype(jnp.int32), end_BL.astype(jnp.int32)


def gpu_attention(
    q_BHLK: jax.Array,
    k_BHLK: jax.Array,
    v_BHLK: jax.Array,
    segments_BL: jax.Array,
    implementations: tuple[str, ...] = IMPLEMENTATIONS,
) -> jax.Array:
    """Attention of whole rows, see `attention.attention`.

    Raises:
      UserError: where no implementation takes ranges of keys: nothing is computed without them.
    """
    from tokamax._src.ops.attention import api, base

    if not flags.FLAGS.is_parsed():  # outside a command, tokamax would parse the arguments of a notebook or of pytest
        flags.FLAGS.mark_as_parsed()
    start_BL, end_BL = key_ranges(segments_BL)
    mask = base.Mask(k_start=start_BL[:, None], k_end=end_BL[:, None])
    q, k, v = (without_padding(x, segments_BL).swapaxes(1, 2) for x in (q_BHLK, k_BHLK, v_BHLK))
    reasons = []
    for name in implementations:
        if name == "mosaic_gpu" and q.shape[1] % MOSAIC_BLOCK:
            reasons.append(f"{name}: rows of {q.shape[1]} tokens are not a multiple of {MOSAIC_BLOCK}")
            continue
        try:
            out_BLHK = api.IMPLEMENTATIONS[name](q, k, v, mask=mask, logits_scale=q.shape[-1] ** -0.5)
            return jnp.where((segments_BL > 0)[:, None, :, None], out_BLHK.swapaxes(1, 2), 0)
        except (NotImplementedError, KeyError) as error:
            reasons.append(f"{name}: {error}")
    raise UserError(
        f"model.attention=gpu: no kernel here honours segments ({'; '.join(reasons)}); "
        "take splash on TPUs, chunked on CPUs"
    )
