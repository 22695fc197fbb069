"""Attention in chunks that start where a segment starts, so no work is spent between segments.

A segment is one contiguous range of slots. It is walked in chunks of `block` tokens, by loops whose trip counts
come from the segment's length. Keys are taken LARGE chunks at once while so many are left: larger products, of which
nothing has to be masked. A chunk is taken of all heads at once, or small segments would be many short steps of loops.
Softmax is accumulated as in FlashAttention (Dao et al. 2022), and the backward pass recomputes the weights from the
saved log-sum-exp.

A last chunk may reach past its segment: what lies there is read as zeros, and what is computed there is overwritten by
the next segment in order, or lands in the `block` slots appended to every row.

A row no longer than a large chunk is one dense product on a CPU (`dense.py`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vdit.models.attention.context import Kernel, scaled
from vdit.models.attention.dense import DENSE, NOTHING
from vdit.parallel.mesh import platform

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


def _slice(x_HLK: jax.Array, start: jax.Array, size: int) -> jax.Array:
    return jax.lax.dynamic_slice_in_dim(x_HLK, start, size, axis=1)


def _read(x_HLK: jax.Array, start: jax.Array, valid: jax.Array) -> jax.Array:
    """The chunk from `start`, with zeros where another segment begins: times a weight of 0 its NaN would be NaN."""
    return jnp.where(valid[:, None], _slice(x_HLK, start, len(valid)), 0)


def _write(x_HLK: jax.Array, value: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice_in_dim(x_HLK, value, start, axis=1)


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


def _forward_row(
    q_HLK: jax.Array, k_HMK: jax.Array, v_HMK: jax.Array, ranges: _Ranges, block: int
) -> tuple[jax.Array, jax.Array]:
    """Output and log-sum-exp of one row."""
    heads, slots, width = q_HLK.shape

    def query_chunk(i: jax.Array, carry: tuple[jax.Array, jax.Array], n: jax.Array) -> tuple[jax.Array, jax.Array]:
        here = ranges.q_start_L[n] + i * block
        start, length = ranges.k_start_L[n], ranges.k_length_L[n]
        q = _slice(q_HLK, here, block)  # another segment's rows of the result are overwritten

        def key_chunk(begin: jax.Array, state: tuple[jax.Array, ...], size: int) -> tuple[jax.Array, ...]:
            out, peak, total = state
            k, v = (_slice(x, start + begin, size) for x in (k_HMK, v_HMK))
            score = jnp.einsum("hqk,hmk->hqm", q, k)
            if size == block:
                valid = _valid(begin, length, size)
                score, v = jnp.where(valid, score, NOTHING), jnp.where(valid[:, None], v, 0)
            high = jnp.maximum(peak, score.max(-1, keepdims=True))
            weight, fade = jnp.exp(score - high), jnp.exp(peak - high)
            mixed = jnp.einsum("hqm,hmk->hqk", weight, v)
            return out * fade + mixed, high, total * fade + weight.sum(-1, keepdims=True)

        column = jnp.zeros((heads, block, 1), q.dtype)
        state = jnp.zeros((heads, block, width), q.dtype), column + NOTHING, column
        out, peak, total = _over_keys(key_chunk, state, length, block, k_HMK.shape[1])
        out_HLK, lse_HL1 = carry
        total = jnp.where(length > 0, total, 1)
        return _write(out_HLK, out / total, here), _write(lse_HL1, peak + jnp.log(total), here)

    def segment(n: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        chunks = _chunks(ranges.q_length_L[n], block)
        return jax.lax.fori_loop(0, chunks, functools.partial(query_chunk, n=n), carry)

    nothing = jnp.zeros_like(q_HLK), jnp.full((heads, slots, 1), NOTHING, q_HLK.dtype)
    return jax.lax.fori_loop(0, ranges.number, segment, nothing)


def _backward_row(
    q_HLK: jax.Array,
    k_HMK: jax.Array,
    v_HMK: jax.Array,
    lse_HL: jax.Array,
    delta_HL: jax.Array,
    grad_HLK: jax.Array,
    ranges: _Ranges,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q, k and v of one row; delta is the sum of grad * out over K.

    Weights are of keys by queries, so that of five products only that for q has to be given its factor transposed.
    """

    def key_chunk(begin: jax.Array, carry: tuple[jax.Array, ...], size: int, n: jax.Array) -> tuple[jax.Array, ...]:
        start = ranges.k_start_L[n] + begin
        keys = _valid(begin, ranges.k_length_L[n], size)
        k, v = (_slice(x, start, size) if size > block else _read(x, start, keys) for x in (k_HMK, v_HMK))

        def query_chunk(i: jax.Array, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
            dq_HLK, dk, dv = state
            here, queries = ranges.q_start_L[n] + i * block, _valid(i * block, ranges.q_length_L[n], block)
            q, grad = (_read(x, here, queries) for x in (q_HLK, grad_HLK))
            lse = jnp.where(queries, _slice(lse_HL, here, block), jnp.inf)  # their weights are 0
            delta = jnp.where(queries, _slice(delta_HL, here, block), 0)
            weight = jnp.exp(jnp.einsum("hmk,hqk->hmq", k, q) - lse[:, None])
            if size == block:
                weight = jnp.where(keys[:, None], weight, 0)
            score_grad = weight * (jnp.einsum("hmk,hqk->hmq", v, grad) - delta[:, None])
            dq = jnp.where(queries[:, None], jnp.einsum("hmq,hmk->hqk", score_grad, k), 0)
            dk += jnp.einsum("hmq,hqk->hmk", score_grad, q)
            dv += jnp.einsum("hmq,hqk->hmk", weight, grad)
            return _write(dq_HLK, _slice(dq_HLK, here, block) + dq, here), dk, dv

        dq_HLK, dk_HMK, dv_HMK = carry
        state = (dq_HLK, jnp.zeros_like(k), jnp.zeros_like(v))
        dq_HLK, dk, dv = jax.lax.fori_loop(0, _chunks(ranges.q_length_L[n], block), query_chunk, state)
        if size == block:
            dk, dv = (jnp.where(keys[:, None], x, 0) for x in (dk, dv))
        return dq_HLK, _write(dk_HMK, dk, start), _write(dv_HMK, dv, start)

    def segment(n: jax.Array, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        return _over_keys(functools.partial(key_chunk, n=n), carry, ranges.k_length_L[n], block, k_HMK.shape[1])

    return jax.lax.fori_loop(0, ranges.number, segment, tuple(map(jnp.zeros_like, (q_HLK, k_HMK, v_HMK))))


def _is_short(q_BHLK: jax.Array, k_BHMK: jax.Array, block: int) -> bool:
    return max(q_BHLK.shape[2], k_BHMK.shape[2]) <= LARGE * block and platform() == "cpu"


def _each_row(function: Callable[..., Any], arrays_B: Sequence[jax.Array], ranges: _Ranges) -> Any:
    """Runs `function(*arrays, ranges)` for one row after another."""
    return jax.lax.map(lambda row: function(*row[0], row[1]), (tuple(arrays_B), ranges))


def _wide(x_BHL: jax.Array, block: int) -> jax.Array:
    """x_BHL, or x_BHLK, in float32 or wider, with `block` spare slots at the end of L."""
    x_BHL = x_BHL.astype(jnp.promote_types(x_BHL.dtype, jnp.float32))
    return jnp.pad(x_BHL, ((0, 0), (0, 0), (0, block), (0, 0))[: x_BHL.ndim])


def _forward(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    q_segments_BL: jax.Array,
    k_segments_BM: jax.Array,
    *,
    block: int,
) -> tuple[jax.Array, jax.Array]:
    if _is_short(q_BHLK, k_BHMK, block):
        return DENSE.forward(q_BHLK, k_BHMK, v_BHMK, q_segments_BL, k_segments_BM)
    wide = [_wide(x, block) for x in (scaled(q_BHLK), k_BHMK, v_BHMK)]
    row, length = functools.partial(_forward_row, block=block), q_BHLK.shape[2]
    out_BHLK, lse_BHL1 = _each_row(row, wide, jax.vmap(_ranges)(q_segments_BL, k_segments_BM))
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
    if _is_short(q_BHLK, k_BHMK, block):
        return DENSE.backward(*like, q_segments_BL, k_segments_BM, lse_BHL, delta_BHL, grad_BHLK)
    wide = [_wide(x, block) for x in (scaled(q_BHLK), *like[1:], lse_BHL, delta_BHL, grad_BHLK)]
    ranges = jax.vmap(_ranges)(q_segments_BL, k_segments_BM)
    dq, dk, dv = _each_row(functools.partial(_backward_row, block=block), wide, ranges)
    grads = scaled(dq), dk, dv
    dq, dk, dv = (grad[:, :, : x.shape[2]].astype(x.dtype) for grad, x in zip(grads, like, strict=True))
    return dq, dk, dv
