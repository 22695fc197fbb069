"""Attention in chunks that start where a segment starts, so no work is spent between segments.

A segment is one contiguous range of slots. It is walked in chunks of `block` tokens, by loops whose trip counts
come from the segment's length: ceil(n / block)^2 chunk products a segment. Heads run one after another, so that
products are two-dimensional: on CPU XLA's batched products run at a third of their rate. Softmax is accumulated as in
FlashAttention (Dao et al. 2022), and the backward pass recomputes the weights from the saved log-sum-exp.

A last chunk may reach past its segment: what it computes there is masked, and overwritten by the next segment in
order, or lands in the `block` slots appended to every row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class _Ranges(NamedTuple):
    """Where each of a row's segments starts and how long it is; entries past `number` are empty."""

    number: jax.Array
    start_L: jax.Array
    length_L: jax.Array


def _ranges(segments_L: jax.Array) -> _Ranges:
    size = segments_L.shape[0]
    place_L = jnp.arange(size, dtype=jnp.int32)
    # Segments count 1, 2, ... in order, so a segment's start is the number of slots with a lower number.
    real = segments_L > 0
    ordered_L = jnp.where(real, segments_L, size + 1)
    start_L = jnp.searchsorted(ordered_L, place_L + 1, side="left").astype(jnp.int32)
    end_L = jnp.searchsorted(ordered_L, place_L + 1, side="right").astype(jnp.int32)
    return _Ranges(ordered_L[jnp.maximum(real.sum() - 1, 0)] * real.any(), start_L, end_L - start_L)


def _chunks(length: jax.Array, block: int) -> jax.Array:
    return (length + block - 1) // block


def _read(x_LK: jax.Array, start: jax.Array, block: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x_LK, start, block)


def _write(x_LK: jax.Array, value: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x_LK, value, start, axis=0)


def _valid(begin: jax.Array, length: jax.Array, block: int) -> jax.Array:
    return begin + jnp.arange(block, dtype=jnp.int32) < length


def _forward_head(
    q_LK: jax.Array, k_LK: jax.Array, v_LK: jax.Array, ranges: _Ranges, block: int
) -> tuple[jax.Array, jax.Array]:
    """Output and log-sum-exp of one head of one row; q is scaled."""
    size, width = q_LK.shape

    def query_chunk(i: jax.Array, carry: tuple[jax.Array, jax.Array], n: jax.Array) -> tuple[jax.Array, jax.Array]:
        start, length = ranges.start_L[n], ranges.length_L[n]
        q = _read(q_LK, start + i * block, block)

        def key_chunk(j: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            out, peak, total = state
            k, v = (_read(x, start + j * block, block) for x in (k_LK, v_LK))
            score = jnp.where(_valid(j * block, length, block)[None], q @ k.T, -1e30)
            high = jnp.maximum(peak, score.max(-1, keepdims=True))
            weight, fade = jnp.exp(score - high), jnp.exp(peak - high)
            return out * fade + weight @ v, high, total * fade + weight.sum(-1, keepdims=True)

        column = jnp.zeros((block, 1), q.dtype)
        state = jnp.zeros((block, width), q.dtype), column - 1e30, column
        out, peak, total = jax.lax.fori_loop(0, _chunks(length, block), key_chunk, state)
        out_LK, lse_L1 = carry
        here = start + i * block
        return _write(out_LK, out / total, here), _write(lse_L1, peak + jnp.log(total), here)

    def segment(n: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        chunks = _chunks(ranges.length_L[n], block)
        return jax.lax.fori_loop(0, chunks, functools.partial(query_chunk, n=n), carry)

    return jax.lax.fori_loop(0, ranges.number, segment, (jnp.zeros_like(q_LK), jnp.zeros((size, 1), q_LK.dtype)))


def _backward_head(
    q_LK: jax.Array,
    k_LK: jax.Array,
    v_LK: jax.Array,
    lse_L1: jax.Array,
    delta_L1: jax.Array,
    grad_LK: jax.Array,
    ranges: _Ranges,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v of one head of one row; delta is the sum of grad * out over K."""

    def key_chunk(j: jax.Array, carry: tuple[jax.Array, ...], n: jax.Array) -> tuple[jax.Array, ...]:
        start, length = ranges.start_L[n], ranges.length_L[n]
        k, v = (_read(x, start + j * block, block) for x in (k_LK, v_LK))
        keys = _valid(j * block, length, block)[None]

        def query_chunk(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            dq_LK, dk, dv = state
            here = start + i * block
            q, lse, delta, grad, dq = (_read(x, here, block) for x in (q_LK, lse_L1, delta_L1, grad_LK, dq_LK))
            valid = keys & _valid(i * block, length, block)[:, None]
            weight = jnp.where(valid, jnp.exp(q @ k.T - lse), 0)
            score_grad = weight * (grad @ v.T - delta)
            return _write(dq_LK, dq + score_grad @ k, here), dk + score_grad.T @ q, dv + weight.T @ grad

        dq_LK, dk_LK, dv_LK = carry
        state = (dq_LK, jnp.zeros_like(k), jnp.zeros_like(v))
        dq_LK, dk, dv = jax.lax.fori_loop(0, _chunks(length, block), query_chunk, state)
        return dq_LK, _write(dk_LK, dk, start + j * block), _write(dv_LK, dv, start + j * block)

    def segment(n: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        chunks = _chunks(ranges.length_L[n], block)
        return jax.lax.fori_loop(0, chunks, functools.partial(key_chunk, n=n), carry)

    return jax.lax.fori_loop(0, ranges.number, segment, (jnp.zeros_like(q_LK),) * 3)


def _each_head(function: Callable[..., Any], arrays_BHLK: Sequence[jax.Array], ranges: _Ranges) -> Any:
    """Runs `function(*arrays_LK, ranges)` for one head of one row after another."""
    return jax.lax.map(
        lambda row: jax.lax.map(lambda head: function(*head, row[1]), row[0]), (tuple(arrays_BHLK), ranges)
    )


def _heads_first(x_BLHK: jax.Array, block: int) -> jax.Array:
    """x_BHLK in float32 or wider, with `block` spare slots at the end of L."""
    x_BHLK = x_BLHK.transpose(0, 2, 1, 3).astype(jnp.promote_types(x_BLHK.dtype, jnp.float32))
    return jnp.pad(x_BHLK, ((0, 0), (0, 0), (0, block), (0, 0)))


def _heads_last(x_BHLK: jax.Array, segments_BL: jax.Array, dtype: jnp.dtype) -> jax.Array:
    x_BLHK = x_BHLK[:, :, : segments_BL.shape[1]].transpose(0, 2, 1, 3).astype(dtype)
    return jnp.where((segments_BL > 0)[..., None, None], x_BLHK, 0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def chunked_attention(
    q_BLHK: jax.Array, k_BLHK: jax.Array, v_BLHK: jax.Array, segments_BL: jax.Array, block: int
) -> jax.Array:
    """Attention within segments, see `attention.attention`; segments must be contiguous and count 1, 2, ..."""
    return _forward(q_BLHK, k_BLHK, v_BLHK, segments_BL, block)[0]


def _forward(
    q_BLHK: jax.Array, k_BLHK: jax.Array, v_BLHK: jax.Array, segments_BL: jax.Array, block: int
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    q_BLHK = q_BLHK * jnp.asarray(q_BLHK.shape[-1] ** -0.5, q_BLHK.dtype)
    wide = [_heads_first(x, block) for x in (q_BLHK, k_BLHK, v_BLHK)]
    head = functools.partial(_forward_head, block=block)
    out_BHLK, lse_BHL1 = _each_head(head, wide, jax.vmap(_ranges)(segments_BL))
    out_BLHK = _heads_last(out_BHLK, segments_BL, q_BLHK.dtype)
    return out_BLHK, (*wide, lse_BHL1, segments_BL, out_BLHK)


def _backward(
    block: int, saved: tuple[jax.Array, ...], grad_BLHK: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, None]:
    *wide, segments_BL, out_BLHK = saved
    delta_BLH1 = (grad_BLHK * out_BLHK).sum(-1, keepdims=True)
    arrays = (*wide, _heads_first(delta_BLH1, block), _heads_first(grad_BLHK, block))
    grads = _each_head(functools.partial(_backward_head, block=block), arrays, jax.vmap(_ranges)(segments_BL))
    dq, dk, dv = (_heads_last(x, segments_BL, grad_BLHK.dtype) for x in grads)
    return dq * jnp.asarray(grad_BLHK.shape[-1] ** -0.5, dq.dtype), dk, dv, None


chunked_attention.defvjp(_forward, _backward)
