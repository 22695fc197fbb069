"""Attention within segments: one function, several backends that agree in value and gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from vdit.config import UserError
from vdit.models.chunked_attention import chunked_attention


def attention(
    q_BLHK: jax.Array, k_BLHK: jax.Array, v_BLHK: jax.Array, segments_BL: jax.Array, *, backend: str, block: int
) -> jax.Array:
    """Softmax attention of every token to the tokens of its own segment, scaled by 1/sqrt(K).

    Args:
      q_BLHK, k_BLHK, v_BLHK: queries, keys and values.
      segments_BL: int32, contiguous runs of 1, 2, ... along each row; 0 is padding.
      backend: "reference" (dense) or "chunked" (skips what belongs to other segments).
      block: tokens of a chunk, for "chunked".

    Returns:
      out_BLHK, 0 in padding slots.

    Raises:
      UserError: for a backend that is not known; none ignores segments.
    """
    if backend == "reference":
        function = reference_attention
    elif backend == "chunked":
        function = functools.partial(chunked_attention, block=block)
    else:
        raise UserError(f"model.attention={backend!r} is not one of reference, chunked")
    local = jax.shard_map(function, out_specs=jax.typeof(q_BLHK).sharding.spec, check_vma=False)
    return local(q_BLHK, k_BLHK, v_BLHK, segments_BL)


def reference_attention(q_BLHK: jax.Array, k_BLHK: jax.Array, v_BLHK: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Dense masked attention, in float32 or wider; what every other backend is tested against."""
    wide = jnp.promote_types(q_BLHK.dtype, jnp.float32)
    score_BHLM = jnp.einsum("blhk,bmhk->bhlm", q_BLHK.astype(wide), k_BLHK.astype(wide)) / q_BLHK.shape[-1] ** 0.5
    same_BLM = (segments_BL[:, :, None] == segments_BL[:, None]) & (segments_BL > 0)[:, :, None]
    score_BHLM = jnp.where(same_BLM[:, None], score_BHLM, -jnp.inf)
    peak_BHL1 = jnp.maximum(score_BHLM.max(-1, keepdims=True), -1e30)
    weight_BHLM = jnp.exp(score_BHLM - peak_BHL1)
    weight_BHLM = weight_BHLM / jnp.maximum(weight_BHLM.sum(-1, keepdims=True), 1e-30)
    return jnp.einsum("bhlm,bmhk->blhk", weight_BHLM, v_BLHK.astype(wide)).astype(q_BLHK.dtype)
