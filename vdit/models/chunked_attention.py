"""Attention in chunks that start where a segment starts, so no work is spent between segments.

A segment is one contiguous range of slots. It is walked in chunks of `block` tokens, by loops whose trip counts
come from the segment's length. Keys are taken LARGE chunks at once while so many are left: larger products, of which
nothing has to be masked. Heads run one after another, so that products are two-dimensional: on CPU XLA's batched
products run at a third of their rate. Softmax is accumulated as in FlashAttention (Dao et al. 2022), and the backward
pass recomputes the weights from the saved log-sum-exp.

A last chunk may reach past its segment: what lies there is read as zeros, and what is computed there is overwritten by
the next segment in order, or lands in the `block` slots appended to every row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vdit.models.context_attention import Kernel

NOTHING = -1e30
"""Log-sum-exp of a query without keys, and score of a key that is not there."""

LARGE = 4
"""Chunks of keys in a large one."""


@functools.cache
def chunked(block: int) -> Kernel:
    """The kernel in chunks of `block` tokens; segments must be contiguous and rise along the row."""
    return Kernel(functools.partial(_forward, block=block), functools.partial(_backward, block=block))


class _Ranges(NamedTuple):
    """Where each segment that has queries starts and how long it is, among queries and among keys."""

    number: jax.Array
    q_start_L: jax.Array
    q_length_L: jax.Array
    k_start_L: jax.Array
    k_length_L: jax.Array


def _ranges(q_segments_L: jax.Array, k_segments_M: jax.Array) -> _Ranges:
    size = q_segments_L.shape[0]
    before = jnp.maximum(q_segments_L[0] - 1, 0)  # segments that end before these queries
    wanted_L = jnp.arange(1, size + 1, dtype=jnp.int32)

    def find(segments_L: jax.Array) -> tuple[jax.Array, jax.Array]:
        # Segments rise along the row, so a segment's start is the number of slots with a lower number.
        ordered_L = jnp.where(segments_L > 0, segments_L - before, jnp.iinfo(jnp.int32).max)
        start_L, end_L = (jnp.searchsorted(ordered_L, wanted_L, side=side) for side in ("left", "right"))
        return start_L.astype(jnp.int32), (end_L - start_L).astype(jnp.int32)

    number = jnp.max(jnp.where(q_segments_L > 0, q_segments_L - before, 0))
    return _Ranges(number, *find(q_segments_L), *find(k_segments_M))


def _chunks(length: jax.Array, block: int) -> jax.Array:
    return (length + block - 1) // block


def _slice(x_LK: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x_LK, start, size)


def _read(x_LK: jax.Array, start: jax.Array, valid: jax.Array) -> jax.Array:
    """The chunk from `start`, with zeros where another segment begins: times a weight of 0 its NaN would be NaN."""
    return jnp.where(valid[:, None], _slice(x_LK, start, len(valid)), 0)


def _write(x_LK: jax.Array, value: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x_LK, value, start, axis=0)


def _valid(begin: jax.Array, length: jax.Array, block: int) -> jax.Array:
    return begin + jnp.arange(block, dtype=jnp.int32) < length


def _over_keys(body: Callable[..., Any], state: Any, length: jax.Array, block: int, slots: int) -> Any:
    """Runs state = body(begin, state, size) over chunks of a segment's keys; only those of `block` may be part full."""
    begin, large = jnp.zeros((), jnp.int32), LARGE * block
    if large <= slots:
        whole = functools.partial(body, size=large)
        state = jax.lax.fori_loop(0, length // large, lambda j, state: whole(j * large, state), state)
        begin = length // large * large
    chunks, part = _chunks(length - begin, block), functools.partial(body, size=block)
    return jax.lax.fori_loop(0, chunks, lambda j, state: part(begin + j * block, state), state)


def _forward_head(
    q_LK: jax.Array, k_MK: jax.Array, v_MK: jax.Array, ranges: _Ranges, block: int
) -> tuple[jax.Array, jax.Array]:
    """Output and log-sum-exp of one head of one row."""
    size, width = q_LK.shape

    def query_chunk(i: jax.Array, carry: tuple[jax.Array, jax.Array], n: jax.Array) -> tuple[jax.Array, jax.Array]:
        here = ranges.q_start_L[n] + i * block
        start, length = ranges.k_start_L[n], ranges.k_length_L[n]
        q = _slice(q_LK, here, block)  # another segment's rows of the result are overwritten

        def key_chunk(begin: jax.Array, state: tuple[jax.Array, ...], size: int) -> tuple[jax.Array, ...]:
            out, peak, total = state
            k, v = (_slice(x, start + begin, size) for x in (k_MK, v_MK))
            score = q @ k.T
            if size == block:
                valid = _valid(begin, length, size)
                score, v = jnp.where(valid, score, NOTHING), jnp.where(valid[:, None], v, 0)
            high = jnp.maximum(peak, score.max(-1, keepdims=True))
            weight, fade = jnp.exp(score - high), jnp.exp(peak - high)
            return out * fade + weight @ v, high, total * fade + weight.sum(-1, keepdims=True)

        column = jnp.zeros((block, 1), q.dtype)
        state = jnp.zeros((block, width), q.dtype), column + NOTHING, column
        out, peak, total = _over_keys(key_chunk, state, length, block, len(k_MK))
        out_LK, lse_L1 = carry
        total = jnp.where(length > 0, total, 1)
        return _write(out_LK, out / total, here), _write(lse_L1, peak + jnp.log(total), here)

    def segment(n: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        chunks = _chunks(ranges.q_length_L[n], block)
        return jax.lax.fori_loop(0, chunks, functools.partial(query_chunk, n=n), carry)

    nothing = jnp.zeros_like(q_LK), jnp.full((size, 1), NOTHING, q_LK.dtype)
    return jax.lax.fori_loop(0, ranges.number, segment, nothing)


def _backward_head(
    q_LK: jax.Array,
    k_MK: jax.Array,
    v_MK: jax.Array,
    lse_L1: jax.Array,
    delta_L1: jax.Array,
    grad_LK: jax.Array,
    ranges: _Ranges,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v of one head of one row; delta is the sum of grad * out over K.

    Weights are of keys by queries, so that of five products only that for q has to be given its factor transposed.
    """

    def key_chunk(begin: jax.Array, carry: tuple[jax.Array, ...], size: int, n: jax.Array) -> tuple[jax.Array, ...]:
        start = ranges.k_start_L[n] + begin
        keys = _valid(begin, ranges.k_length_L[n], size)
        k, v = (_slice(x, start, size) if size > block else _read(x, start, keys) for x in (k_MK, v_MK))

        def query_chunk(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            dq_LK, dk, dv = state
            here, queries = ranges.q_start_L[n] + i * block, _valid(i * block, ranges.q_length_L[n], block)
            q, grad, delta = (_read(x, here, queries) for x in (q_LK, grad_LK, delta_L1))
            lse = jnp.where(queries, _slice(lse_L1, here, block)[:, 0], jnp.inf)  # their weights are 0
            weight = jnp.exp(k @ q.T - lse)
            if size == block:
                weight = jnp.where(keys[:, None], weight, 0)
            score_grad = weight * (v @ grad.T - delta[:, 0])
            dq = _slice(dq_LK, here, block) + jnp.where(queries[:, None], score_grad.T @ k, 0)
            return _write(dq_LK, dq, here), dk + score_grad @ q, dv + weight @ grad

        dq_LK, dk_MK, dv_MK = carry
        state = (dq_LK, jnp.zeros_like(k), jnp.zeros_like(v))
        dq_LK, dk, dv = jax.lax.fori_loop(0, _chunks(ranges.q_length_L[n], block), query_chunk, state)
        if size == block:
            dk, dv = (jnp.where(keys[:, None], x, 0) for x in (dk, dv))
        return dq_LK, _write(dk_MK, dk, start), _write(dv_MK, dv, start)

    def segment(n: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return _over_keys(functools.partial(key_chunk, n=n), carry, ranges.k_length_L[n], block, len(k_MK))

    return jax.lax.fori_loop(0, ranges.number, segment, tuple(map(jnp.zeros_like, (q_LK, k_MK, v_MK))))


def _each_head(function: Callable[..., Any], arrays_BHLK: Sequence[jax.Array], ranges: _Ranges) -> Any:
    """Runs `function(*arrays_LK, ranges)` for one head of one row after another."""
    return jax.lax.map(
        lambda row: jax.lax.map(lambda head: function(*head, row[1]), row[0]), (tuple(arrays_BHLK), ranges)
    )


def _wide(x_BHLK: jax.Array, block: int) -> jax.Array:
    """x_BHLK in float32 or wider, with `block` spare slots at the end of L."""
    x_BHLK = x_BHLK.astype(jnp.promote_types(x_BHLK.dtype, jnp.float32))
    return jnp.pad(x_BHLK, ((0, 0), (0, 0), (0, block), (0, 0)))


def _forward(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    q_segments_BL: jax.Array,
    k_segments_BM: jax.Array,
    *,
    block: int,
) -> tuple[jax.Array, jax.Array]:
    wide = [_wide(x, block) for x in (q_BHLK, k_BHMK, v_BHMK)]
    head, length = functools.partial(_forward_head, block=block), q_BHLK.shape[2]
    out_BHLK, lse_BHL1 = _each_head(head, wide, jax.vmap(_ranges)(q_segments_BL, k_segments_BM))
    out_BHLK = jnp.where((q_segments_BL > 0)[:, None, :, None], out_BHLK[:, :, :length], 0)
    return out_BHLK.astype(q_BHLK.dtype), lse_BHL1[:, :, :length, 0]


def _backward(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    q_segments_BL: jax.Array,
    k_segments_BM: jax.Array,
    lse_BHL: jax.Array,
    delta_BHL: jax.Array,
    grad_BHLK: jax.Array,
    *,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    like = q_BHLK, k_BHMK, v_BHMK
    wide = [_wide(x, block) for x in (*like, lse_BHL[..., None], delta_BHL[..., None], grad_BHLK)]
    ranges = jax.vmap(_ranges)(q_segments_BL, k_segments_BM)
    grads = _each_head(functools.partial(_backward_head, block=block), wide, ranges)
    dq, dk, dv = (grad[:, :, : x.shape[2]].astype(x.dtype) for grad, x in zip(grads, like, strict=True))
    return dq, dk, dv
