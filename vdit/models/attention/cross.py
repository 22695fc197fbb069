"""Attention of patches to the captions of their own examples."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vdit.models.attention.attention import kernel_of
from vdit.models.attention.context import Kernel, delta_of, saved, scaled, without_padding

NOTHING = -1e30
CHUNK = 512
"""Queries worked on at once where there is no kernel: what is held is H x CHUNK x M scores a row."""


def cross_attention(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    padding_2HK: jax.Array,
    captions: dict[str, jax.Array],
    *,
    backend: str,
    block: int = 0,
) -> jax.Array:
    """Softmax attention to the caption tokens of the same example and to equal padding tokens behind them.

    Equal keys need not be there more than once: n of them weigh as one whose score is larger by log n.

    Args:
      q_BHLK: queries; rows may lie over `context`.
      k_BHMK, v_BHMK: keys and values of the caption tokens of a row.
      padding_2HK: key and value of a padding token.
      captions: their layout from `rowwise`: segments_BL and segments_BM, the example of every query and token, rising
        along the row, and padding_BL, the number of padding tokens that a query sees.
      backend, block: as those of `attention.attention`; "gpu" has no kernel for this and takes XLA's products.

    Returns:
      out_BHLK.
    """
    kernel = kernel_of(backend, block)
    attend = functools.partial(_cross, kernel) if kernel else _plain

    def local(q: jax.Array, k: jax.Array, v: jax.Array, padding: jax.Array, captions: dict[str, jax.Array]) -> Any:
        left_BL = captions["padding_BL"][:, None]
        bias_B1L = jnp.where(left_BL > 0, jnp.log(jnp.maximum(left_BL, 1).astype(jnp.float32)), NOTHING)
        return attend(q, k, v, padding, bias_B1L, captions["segments_BL"], captions["segments_BM"])

    run = jax.shard_map(local, out_specs=jax.typeof(q_BHLK).sharding.spec, check_vma=False)
    return run(q_BHLK, k_BHMK, v_BHMK, padding_2HK, captions)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _cross(kernel: Kernel, *arrays: jax.Array) -> jax.Array:
    """The kernel over the caption tokens, joined with the padding's share of the softmax."""
    return _forward(kernel, *arrays)[0]


def _score(q_BHLK: jax.Array, key_HK: jax.Array, bias_B1L: jax.Array) -> jax.Array:
    wide_q = scaled(q_BHLK)
    return jnp.einsum("bhlk,hk->bhl", wide_q, key_HK.astype(wide_q.dtype)) + bias_B1L


def _forward(
    kernel: Kernel,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    padding_2HK: jax.Array,
    bias_B1L: jax.Array,
    segments_BL: jax.Array,
    segments_BM: jax.Array,
) -> tuple[jax.Array, Any]:
    words, lse_BHL = kernel.forward(q, k, v, segments_BL, segments_BM)
    score_BHL = _score(q, padding_2HK[0], bias_B1L)
    total_BHL = jnp.logaddexp(lse_BHL, score_BHL)
    share, rest = (jnp.exp(x - total_BHL)[..., None] for x in (lse_BHL, score_BHL))
    out = words * share + rest * padding_2HK[1][:, None].astype(rest.dtype)
    out, total_BHL = saved(out.astype(q.dtype), total_BHL)
    return out, (q, k, v, padding_2HK, bias_B1L, segments_BL, segments_BM, out, total_BHL)


def _backward(kernel: Kernel, held: Any, grad: jax.Array) -> tuple[Any, ...]:
    q, k, v, padding_2HK, bias_B1L, segments_BL, segments_BM, out, total_BHL = held
    delta_BHL = delta_of(grad, out)
    dq, dk, dv = kernel.backward(q, k, v, segments_BL, segments_BM, total_BHL, delta_BHL, grad)
    key_HK, value_HK = padding_2HK.astype(total_BHL.dtype)
    wide_grad = grad.astype(total_BHL.dtype)
    weight_BHL = jnp.exp(_score(q, key_HK, bias_B1L) - total_BHL)
    score_grad = weight_BHL * (jnp.einsum("bhlk,hk->bhl", wide_grad, value_HK) - delta_BHL)
    dq += scaled(score_grad[..., None] * key_HK[:, None]).astype(dq.dtype)
    products = (score_grad, scaled(q)), (weight_BHL, wide_grad)
    dkey_HK, dvalue_HK = (jnp.einsum("bhl,bhlk->hk", x, y) for x, y in products)
    return dq, dk, dv, jnp.stack([dkey_HK, dvalue_HK]).astype(padding_2HK.dtype), None, None, None


_cross.defvjp(_forward, _backward)


def _plain(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    padding_2HK: jax.Array,
    bias_B1L: jax.Array,
    segments_BL: jax.Array,
    segments_BM: jax.Array,
) -> jax.Array:
    """The same with dense masked scores, in chunks of queries."""
    q_BHLK, k_BHMK = without_padding(q_BHLK, segments_BL), without_padding(k_BHMK, segments_BM)
    v_BHMK = without_padding(v_BHMK, segments_BM)

    @jax.checkpoint
    def chunk(queries: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        q, bias_B1C, segments_BC = queries
        own_BCM = (segments_BC[..., None] == segments_BM[:, None]) & (segments_BC > 0)[..., None]
        wide = jnp.promote_types(q.dtype, jnp.float32)
        score_BHCM = jnp.einsum("bhck,bhmk->bhcm", scaled(q), k_BHMK.astype(wide))
        score_BHCM = jnp.where(own_BCM[:, None], score_BHCM, NOTHING)
        score = jnp.concatenate([score_BHCM, _score(q, padding_2HK[0], bias_B1C)[..., None]], -1)
        weight = jax.nn.softmax(score, axis=-1)
        words = jnp.einsum("bhcm,bhmk->bhck", weight[..., :-1], v_BHMK.astype(wide))
        return (words + weight[..., -1:] * padding_2HK[1][:, None]).astype(q.dtype)

    return _in_chunks(chunk, (q_BHLK, bias_B1L, segments_BL), (2, 2, 1), q_BHLK.shape[2])


def _in_chunks(
    function: Callable[..., jax.Array], arrays: tuple[jax.Array, ...], axes: tuple[int, ...], length: int
) -> jax.Array:
    """Function over chunks of the arrays' token axes, one after another; out_BHLK."""
    size = min(CHUNK, length)
    chunks = -(-length // size)

    def cut(x: jax.Array, axis: int) -> jax.Array:
        x = jnp.pad(x, [(0, chunks * size - length if i == axis else 0) for i in range(x.ndim)])
        return jnp.moveaxis(x.reshape(*x.shape[:axis], chunks, size, *x.shape[axis + 1 :]), axis, 0)

    out = jax.lax.map(function, tuple(map(cut, arrays, axes)))
    out = jnp.moveaxis(out, 0, 2)
    return out.reshape(*out.shape[:2], chunks * size, *out.shape[4:])[:, :, :length]
