"""Attention of short rows in one masked product: loops over their segments would take longer than all pairs do.

As in the loops, what is not finite stays in its segment. A weight of 0 times NaN is NaN, so products with weights read
zeros in its place, and it reaches its own segment by the scores, to which 0 times it is added.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from vdit.models.attention.context import Kernel, scaled
from vdit.models.memory import apart

NOTHING = -1e30
"""Log-sum-exp of a query without keys, and score of a key that is not there."""


def _forward(
    q_BHLK: jax.Array, k_BHMK: jax.Array, v_BHMK: jax.Array, q_segments_BL: jax.Array, k_segments_BM: jax.Array
) -> tuple[jax.Array, jax.Array]:
    k, v = (_wide(x) for x in (k_BHMK, v_BHMK))
    same_B1LM = _same(q_segments_BL, k_segments_BM)
    score_BHLM = jnp.where(same_B1LM, jnp.einsum("bhlk,bhmk->bhlm", scaled(q_BHLK), k + 0 * v), NOTHING)
    peak_BHL1 = score_BHLM.max(-1, keepdims=True)
    # Where there is no key at all every score is the peak.
    weight_BHLM = jnp.where(same_B1LM, jnp.exp(score_BHLM - peak_BHL1), 0)
    total_BHL1 = weight_BHLM.sum(-1, keepdims=True)
    total_BHL1 = jnp.where(total_BHL1 == 0, 1, total_BHL1)
    out_BHLK = jnp.einsum("bhlm,bhmk->bhlk", weight_BHLM, _finite(v)) / total_BHL1
    return out_BHLK.astype(q_BHLK.dtype), (peak_BHL1 + jnp.log(total_BHL1))[..., 0]


def _backward(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    q_segments_BL: jax.Array,
    k_segments_BM: jax.Array,
    lse_BHL: jax.Array,
    delta_BHL: jax.Array,
    grad_BHLK: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    q, k, v, grad = scaled(q_BHLK), *(_wide(x) for x in (k_BHMK, v_BHMK, grad_BHLK))
    same_B1ML = _same(q_segments_BL, k_segments_BM).swapaxes(2, 3)
    # Of keys by queries, so that of five products only that for q has to be given its factor transposed.
    score_BHML = jnp.einsum("bhmk,bhlk->bhml", k, q + 0 * grad)
    weight_BHML = jnp.where(same_B1ML, jnp.exp(score_BHML - lse_BHL[:, :, None]), 0)
    of_weight_BHML = jnp.einsum("bhmk,bhlk->bhml", v, grad) - apart(delta_BHL)[:, :, None]
    of_score_BHML = jnp.where(same_B1ML, weight_BHML * of_weight_BHML, 0)
    dq = scaled(jnp.einsum("bhml,bhmk->bhlk", of_score_BHML, _finite(k)))
    dk = jnp.einsum("bhml,bhlk->bhmk", of_score_BHML, _finite(q))
    dv = jnp.einsum("bhml,bhlk->bhmk", weight_BHML, _finite(grad))
    return dq.astype(q_BHLK.dtype), dk.astype(k_BHMK.dtype), dv.astype(v_BHMK.dtype)


def _wide(x_BHLK: jax.Array) -> jax.Array:
    return x_BHLK.astype(jnp.promote_types(x_BHLK.dtype, jnp.float32))


def _same(q_segments_BL: jax.Array, k_segments_BM: jax.Array) -> jax.Array:
    """Which pairs are of one segment, same_B1LM."""
    same_BLM = q_segments_BL[:, :, None] == k_segments_BM[:, None]
    return (same_BLM & (q_segments_BL > 0)[:, :, None])[:, None]


def _finite(x_BHLK: jax.Array) -> jax.Array:
    return jnp.where(jnp.isfinite(x_BHLK), x_BHLK, 0)


DENSE = Kernel(_forward, _backward)
"""The kernel of short rows."""
