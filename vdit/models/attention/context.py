"""Attention from kernels that attend a run of queries to a run of keys: of whole rows, or of rows over `context`.

All functions run inside shard_map, on a device's own rows, heads and tokens.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

Attend = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]

SAVED = "attention"
"""Name of an attention's output and log-sum-exp, for remat policies."""


@dataclasses.dataclass(frozen=True)
class Kernel:
    """Softmax attention of queries to those keys that have the same positive segment, and its gradient.

    Attributes:
      forward: (q_BHLK, k_BHMK, v_BHMK, segments_BL, segments_BM) -> (out_BHLK, lse_BHL): the output over these keys
        alone, and the logarithm of the sum of exp(score), at most -1e30 where there is no key. Scores are scaled by
        1/sqrt(K) in the kernel (see `scaled`); what padding holds is finite.
      backward: (q, k, v, segments_BL, segments_BM, lse_BHL, delta_BHL, grad_BHLK) -> gradients of q, k and v, with lse
        over all keys of the row and delta the sum of grad * out over K.
    """

    forward: Callable[..., tuple[jax.Array, jax.Array]]
    backward: Callable[..., tuple[jax.Array, jax.Array, jax.Array]]


def scaled(q_BHLK: jax.Array) -> jax.Array:
    """Queries over sqrt(K), in float32 or wider: rounded to bfloat16 the factor alone would be off by up to 0.4%."""
    wide = jnp.promote_types(q_BHLK.dtype, jnp.float32)
    return q_BHLK.astype(wide) * jnp.asarray(q_BHLK.shape[-1] ** -0.5, wide)


def without_padding(x_BHLK: jax.Array, segments_BL: jax.Array) -> jax.Array:
    """Zeros in padding slots: a NaN there, times a weight of 0, would be a NaN."""
    return jnp.where((segments_BL > 0)[:, None, :, None], x_BHLK, 0)


def delta_of(grad_BHLK: jax.Array, out_BHLK: jax.Array) -> jax.Array:
    """The sum of grad * out over K, delta_BHL."""
    wide = jnp.promote_types(out_BHLK.dtype, jnp.float32)
    batch, heads, length, width = out_BHLK.shape
    # XLA on CPU is five times slower at sums along the last of four axes where there is one head.
    grad_BMK, out_BMK = (x.astype(wide).reshape(batch, heads * length, width) for x in (grad_BHLK, out_BHLK))
    return (grad_BMK * out_BMK).sum(-1).reshape(batch, heads, length)


def saved(out_BHLK: jax.Array, lse_BHL: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The two under their name for remat policies."""
    return checkpoint_name(out_BHLK, SAVED), checkpoint_name(lse_BHL, SAVED)


def within(kernel: Kernel, spread: bool = False) -> Attend:
    """Attention of whole rows.

    Args:
      kernel: attends.
      spread: the rows lie over `context`. Every device is given all tokens of a part of its heads (Jacobs et al. 2023,
        "Ulysses"), and gives its share of the result back.
    """
    return functools.partial(_within, kernel, spread)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _within(
    kernel: Kernel, spread: bool, q: jax.Array, k: jax.Array, v: jax.Array, segments_BL: jax.Array
) -> jax.Array:
    return _within_forward(kernel, spread, q, k, v, segments_BL)[0]


def _within_forward(
    kernel: Kernel, spread: bool, q: jax.Array, k: jax.Array, v: jax.Array, segments_BL: jax.Array
) -> tuple[jax.Array, Any]:
    if spread:
        q, k, v, segments_BL = _all_tokens(q), _all_tokens(k), _all_tokens(v), _whole_ids(segments_BL)
    out, lse = kernel.forward(q, k, v, segments_BL, segments_BL)
    # What is kept of the output is what the block needs again: a device's own tokens.
    out, lse = saved(_all_heads(out) if spread else out, lse)
    return out, (q, k, v, segments_BL, out, lse)


def _within_backward(kernel: Kernel, spread: bool, held: Any, grad: jax.Array) -> tuple[Any, ...]:
    q, k, v, segments_BL, out, lse = held
    grad = jax.lax.optimization_barrier(grad)  # or XLA takes the sum of delta into the product that makes grad, slowly
    delta = delta_of(grad, out)
    if spread:
        grad, delta = _all_tokens(grad), _all_tokens(delta)
    grads = kernel.backward(q, k, v, segments_BL, segments_BL, lse, delta, grad)
    grads = jax.lax.optimization_barrier([_all_heads(x) for x in grads]) if spread else grads
    return *grads, None


_within.defvjp(_within_forward, _within_backward)


def exchange_heads(attend: Attend) -> Attend:
    """The same for a function that is no `Kernel`, and has a gradient of its own."""

    def exchanged(q: jax.Array, k: jax.Array, v: jax.Array, segments_BL: jax.Array) -> jax.Array:
        return _all_heads(attend(_all_tokens(q), _all_tokens(k), _all_tokens(v), _whole_ids(segments_BL)))

    return exchanged


def _whole_ids(segments_BL: jax.Array) -> jax.Array:
    """Segment ids of whole rows."""
    return jax.lax.all_gather(segments_BL, "context", axis=1, tiled=True)


def _swap(x_BCHL: jax.Array) -> jax.Array:
    """Gives part c of C to device c; returns the parts that the devices gave."""
    return jax.lax.all_to_all(x_BCHL, "context", split_axis=1, concat_axis=1, tiled=True)


def _all_tokens(x_BHL: jax.Array) -> jax.Array:
    """From all heads of some tokens to all tokens of some heads; with or without K at the end."""
    batch, heads, length, *rest = x_BHL.shape
    parts = jax.lax.axis_size("context")
    x_BCHL = _swap(x_BHL.reshape(batch, parts, heads // parts, length, *rest))
    return x_BCHL.swapaxes(1, 2).reshape(batch, heads // parts, parts * length, *rest)


def _all_heads(x_BHLK: jax.Array) -> jax.Array:
    """The inverse of `_all_tokens`."""
    batch, heads, length, width = x_BHLK.shape
    parts = jax.lax.axis_size("context")
    x_BHCLK = x_BHLK.reshape(batch, heads, parts, length // parts, width)
    return _swap(x_BHCLK.swapaxes(1, 2)).reshape(batch, heads * parts, length // parts, width)


def ring(kernel: Kernel) -> Attend:
    """Attention of rows over `context` in which keys and values go round, a device at a time.

    What a device holds at once does not grow with the length of the row, and pairs of parts that share no segment cost
    nothing but the passing.
    """
    return functools.partial(_ring, kernel)


def _next(values: Any) -> Any:
    """The values of the device before this one in the ring."""
    size = jax.lax.axis_size("context")
    to = [(i, (i + 1) % size) for i in range(size)]
    return jax.tree.map(lambda x: jax.lax.ppermute(x, "context", to), values)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _ring(kernel: Kernel, q: jax.Array, k: jax.Array, v: jax.Array, segments_BL: jax.Array) -> jax.Array:
    return _ring_forward(kernel, q, k, v, segments_BL)[0]


def _ring_forward(
    kernel: Kernel, q: jax.Array, k: jax.Array, v: jax.Array, segments_BL: jax.Array
) -> tuple[jax.Array, Any]:
    def attend(out: jax.Array, lse: jax.Array, keys: Any) -> tuple[jax.Array, jax.Array]:
        """Joins what is known of the softmax with these keys' share of it."""
        other, other_lse = kernel.forward(q, *keys[:2], segments_BL, keys[2])
        peak = jnp.maximum(lse, other_lse)
        mine, theirs = jnp.exp(lse - peak), jnp.exp(other_lse - peak)
        total = mine + theirs
        joined = out * (mine / total)[..., None] + other.astype(out.dtype) * (theirs / total)[..., None]
        return joined, peak + jnp.log(total)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        out, lse, keys = carry
        following = _next(keys)  # on its way while these keys are attended to
        return (*attend(out, lse, keys), following), None

    keys = k, v, segments_BL
    out, lse = kernel.forward(q, k, v, segments_BL, segments_BL)
    carry = out.astype(jnp.promote_types(out.dtype, jnp.float32)), lse, _next(keys)
    (out, lse, keys), _ = jax.lax.scan(step, carry, length=jax.lax.axis_size("context") - 2)
    out, lse = attend(out, lse, keys)
    out, lse = saved(out.astype(q.dtype), lse)
    return out, (q, k, v, segments_BL, out, lse)


def _ring_backward(kernel: Kernel, held: Any, grad: jax.Array) -> tuple[Any, ...]:
    q, k, v, segments_BL, out, lse = held
    delta, wide = delta_of(grad, out), jnp.promote_types(q.dtype, jnp.float32)

    def step(carry: Any, _: None) -> tuple[Any, None]:
        dq, dk, dv, keys = carry
        following = _next(keys)
        added = kernel.backward(q, *keys[:2], segments_BL, keys[2], lse, delta, grad)
        dq, dk, dv = jax.tree.map(lambda total, part: total + part.astype(wide), (dq, dk, dv), added)
        return (dq, *_next((dk, dv)), following), None  # gradients travel with their keys, and end at home

    dq, dk, dv = (jnp.zeros(x.shape, wide) for x in (q, k, v))
    carry = dq, dk, dv, (k, v, segments_BL)
    (dq, dk, dv, _), _ = jax.lax.scan(step, carry, length=jax.lax.axis_size("context"))
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_ring.defvjp(_ring_forward, _ring_backward)
