"""Attention on TPU by tokamax's splash kernel, which runs over a list of blocks made from the segment ids.

This file is all that knows the inside of tokamax. The kernel walks a list of (query block, key block) pairs; its public
makers derive the list from a dense mask, here it comes from the segments' ranges, in a few operations on L / block
numbers. Inside a block the kernel compares segment ids. A query in padding matches no key, and gets the mean of some
values. The kernel's exponentials are of base 2: it multiplies queries by log2(e), in their own dtype.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vdit.errors import UserError
from vdit.models.attention.context import Kernel, scaled

LANES = 128
"""A block is a multiple of a TPU register's lanes."""

SUBLANES = 8
"""A statistic of a query is repeated over a register's sublanes, a key's id over its lanes."""

COPIES = 3
"""Of the gradient of the queries, see `_gradient_kernel`."""

MOST_BLOCKS = 40_000
"""Entries of a block list that fit the scalar memory: 21,904 compile, 76,176 need more than its 1 MiB."""


def active_blocks(q_segments_BL: Any, k_segments_BM: Any, block: int) -> Any:
    """Which blocks of `block` queries and `block` keys share a segment.

    Args:
      q_segments_BL, k_segments_BM: int32 ids of contiguous segments in rising order, 0 or less for padding; NumPy or
        JAX arrays, lengths multiples of `block`.
      block: tokens of a block.

    Returns:
      bool active_BQK over blocks Q of queries and K of keys. Their number times block^2 is the work that is done.
    """
    xp = jnp if isinstance(q_segments_BL, jax.Array) else np

    def ranges(segments_BL: Any) -> tuple[Any, Any]:
        blocks = segments_BL.reshape(len(segments_BL), -1, block)
        return xp.where(blocks > 0, blocks, np.iinfo(np.int32).max).min(-1), blocks.max(-1)

    (q_low, q_high), (k_low, k_high) = ranges(q_segments_BL), ranges(k_segments_BM)
    overlap = (q_low[:, :, None] <= k_high[:, None]) & (k_low[:, None] <= q_high[:, :, None])
    return overlap & (q_high > 0)[:, :, None] & (k_high > 0)[:, None]


@functools.cache
def splash(block: int) -> Kernel:
    """The kernel in blocks of `block` tokens."""
    return Kernel(functools.partial(_forward, block=block), functools.partial(_backward, block=block))


def _config(block: int) -> Any:
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel

    sizes = dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), block)
    return kernel.SplashConfig(**sizes, dq_reduction_steps=3)  # the only way that takes a list of blocks


def _mask_info(active_BQK: jax.Array) -> Any:
    """The kernel's list of blocks, over rows laid one after another.

    Every query block (the first index) must be visited, or its output is never written: one without keys visits one
    block, in which no segment matches.
    """
    from tokamax._src.ops.experimental.tpu.splash_attention.splash_attention_mask_info import MaskInfo

    rows, queries, keys = active_BQK.shape
    if active_BQK.size > MOST_BLOCKS:
        raise UserError(
            f"rows of {rows} x {queries} x {keys} attention blocks do not fit the TPU's scalar memory; "
            "take fewer rows a device, a larger model.attention_block or more mesh.context with model.context=ring"
        )
    first = (jnp.arange(keys) == 0) & ~active_BQK.any(-1, keepdims=True)
    active_BQK |= first
    (flat,) = jnp.nonzero(active_BQK.ravel(), size=active_BQK.size, fill_value=-1)
    number = active_BQK.sum(dtype=jnp.int32)
    listed = jnp.arange(active_BQK.size) < number
    row_query, key = flat // keys, flat % keys + flat // (keys * queries) * keys
    return MaskInfo(
        mask_next=None,
        active_rows=jnp.where(listed, row_query, -1).astype(jnp.int32),
        active_cols=jnp.where(listed, key, -1).astype(jnp.int32),
        block_mask=jnp.where(listed, 2, 0).astype(jnp.int32),
        num_active_blocks=number[None],
        partial_mask_blocks=None,
        q_sequence=None,
    )


def _size(length: int, block: int) -> int:
    """Tokens of a block: no more than the row needs."""
    if block % LANES:
        raise UserError(f"model.attention_block={block} is not a multiple of {LANES}, as splash attention needs")
    return min(block, math.ceil(length / LANES) * LANES)


def _log2e_error(dtype: Any) -> float:
    """log2(e) over what the kernel multiplies by: 0.9982 in bfloat16."""
    return math.log2(math.e) / float(np.asarray(math.log2(math.e), dtype))


def _queries(q_BHLK: jax.Array) -> jax.Array:
    """Queries as the kernel takes them: scaled in float32, then rounded once to their dtype."""
    wide = scaled(q_BHLK)
    return (wide * _log2e_error(q_BHLK.dtype)).astype(q_BHLK.dtype)


def _fold(x_BHLK: jax.Array, block: int) -> jax.Array:
    """Rows one after another, each padded to whole blocks: x_HLK."""
    batch, heads, length, *rest = x_BHLK.shape
    padding = -length % block
    if padding:
        x_BHLK = jnp.pad(x_BHLK, ((0, 0), (0, 0), (0, padding), *((0, 0) for _ in rest)))
    return x_BHLK.swapaxes(0, 1).reshape(heads, batch * (length + padding), *rest)


def _unfold(x_HLK: jax.Array, like_BHLK: jax.Array) -> jax.Array:
    batch, heads, length = like_BHLK.shape[:3]
    x_HBLK = x_HLK.reshape(heads, batch, -1, *x_HLK.shape[2:])
    return x_HBLK[:, :, :length].swapaxes(0, 1)


def _segments(segments_BL: jax.Array, block: int, padding: int) -> jax.Array:
    """Segment ids in whole blocks; padding gets `padding`, another number for queries than for keys."""
    ids_BL = jnp.pad(segments_BL, ((0, 0), (0, -segments_BL.shape[1] % block)))
    return jnp.where(ids_BL > 0, ids_BL, padding)


def _flat_ids(q_segments_BL: jax.Array, k_segments_BM: jax.Array) -> Any:
    """Segment ids of all rows, which no two rows share."""
    from tokamax._src.ops.experimental.tpu.splash_attention.base import SegmentIds

    rows = jnp.arange(len(q_segments_BL), dtype=jnp.int32)[:, None] * (1 << 20)
    q, k = (jnp.where(ids > 0, ids + rows, ids).ravel() for ids in (q_segments_BL, k_segments_BM))
    return SegmentIds(q, k)


def _forward(
    q_BHLK: jax.Array,
    k_BHMK: jax.Array,
    v_BHMK: jax.Array,
    q_segments_BL: jax.Array,
    k_segments_BM: jax.Array,
    *,
    block: int,
) -> tuple[jax.Array, jax.Array]:
    from tokamax._src.ops.experimental.tpu.splash_attention import base
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel

    block = _size(q_BHLK.shape[2], block)
    q_ids, k_ids = _segments(q_segments_BL, block, -1), _segments(k_segments_BM, block, -2)
    out_HLK, stats = kernel._splash_attention_forward(
        _mask_info(active_blocks(q_ids, k_ids, block)),
        *(_fold(x, block) for x in (_queries(q_BHLK), k_BHMK, v_BHMK)),
        _flat_ids(q_ids, k_ids),
        None,
        mask_value=base.DEFAULT_MASK_VALUE,
        is_mqa=False,
        config=_config(block),
        save_residuals=True,
        mask_function=None,
        fwd_mask_sparsity=1.0,
    )
    lse_HL = stats["logsumexp"] / kernel.LOG2E  # the kernel's exponentials are of base 2
    return _unfold(out_HLK, q_BHLK), _unfold(lse_HL, q_BHLK)


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
    block = _size(q_BHLK.shape[2], block)
    q_ids, k_ids = _segments(q_segments_BL, block, -1), _segments(k_segments_BM, block, -2)
    q_HLK, k_HMK, v_HMK, grad_HLK = (_fold(x, block) for x in (_queries(q_BHLK), k_BHMK, v_BHMK, grad_BHLK))
    dq_HLK, dk_HMK, dv_HMK = _gradient_kernel(
        q_HLK,
        k_HMK,
        v_HMK,
        _flat_ids(q_ids, k_ids),
        _fold(lse_BHL, block),
        grad_HLK,
        _fold(delta_BHL, block),
        _mask_info(active_blocks(q_ids, k_ids, block).swapaxes(1, 2)),
        block,
    )
    dk_HMK = dk_HMK / jnp.asarray(_log2e_error(q_BHLK.dtype), jnp.float32)  # a product with the queries as given to it
    dq_BHLK, dk_BHMK = _unfold(dq_HLK, q_BHLK), _unfold(dk_HMK, k_BHMK)
    return dq_BHLK.astype(q_BHLK.dtype), dk_BHMK.astype(k_BHMK.dtype), _unfold(dv_HMK, v_BHMK)


def _gradient_kernel(
    q_HLK: jax.Array,
    k_HMK: jax.Array,
    v_HMK: jax.Array,
    ids: Any,
    lse_HL: jax.Array,
    grad_HLK: jax.Array,
    delta_HL: jax.Array,
    info: Any,
    block: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Runs tokamax's fused backward kernel over the pairs (key block, query block) of a list.

    As tokamax runs it, but dq is summed in float32, not in the compute dtype, and its copies are added up in one pass.
    The gradient of a query block is read, added to and written once for each of its key blocks; three copies, of which
    neighbouring key blocks take different ones, keep a read from coming before the write that it waits for.
    """
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import tpu as pltpu
    from tokamax._src.ops.experimental.tpu.splash_attention import base
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel
    from tokamax._src.ops.experimental.tpu.splash_attention.splash_attention_mask_info import find_bounds

    heads, length, width = q_HLK.shape

    def spec(shape: tuple[int | None, ...], place: Callable[..., tuple[Any, ...]]) -> pl.BlockSpec:
        """`place` takes head, query block and key block."""
        return pl.BlockSpec(shape, lambda head, n, k_blocks, q_blocks, *_: place(head, q_blocks[n], k_blocks[n]))

    of_queries, of_keys = (
        spec((None, block, width), lambda h, q, k: (h, q, 0)),
        spec((None, block, width), lambda h, q, k: (h, k, 0)),
    )
    of_copies = spec((None, None, block, width), lambda h, q, k: (k % COPIES, h, q, 0))
    of_statistics = spec((None, SUBLANES, block), lambda h, q, k: (h, 0, q))
    of_query_ids = spec((SUBLANES, block), lambda h, q, k: (0, q))
    of_key_ids = spec((block, LANES), lambda h, q, k: (k, 0))

    def statistics(x_HL: jax.Array) -> jax.Array:
        return jnp.broadcast_to(x_HL[:, None], (heads, SUBLANES, length))

    dq_3HLK = jnp.zeros((COPIES, *q_HLK.shape), jnp.float32)
    inputs = (
        *(q_HLK, k_HMK, v_HMK),
        jnp.broadcast_to(ids.q, (SUBLANES, length)),
        jnp.broadcast_to(ids.kv[:, None], (len(ids.kv), LANES)),
        statistics(lse_HL * kernel.LOG2E),
        grad_HLK,
        statistics(delta_HL),
    )
    scalars = info.active_rows, info.active_cols, None, *find_bounds(info.active_rows), info.block_mask
    given = sum(x is not None for x in scalars) + len(inputs)
    dq_3HLK, dk_HMK, dv_HMK = pl.pallas_call(
        functools.partial(
            kernel._flash_attention_dkv_kernel,
            mask_value=base.DEFAULT_MASK_VALUE,
            q_steps=length // block,
            bq=block,
            bkv_compute=block,
            bkv=block,
            mask_function=None,
            q_heads_per_kv_head=1,
            config=_config(block),
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(scalars),
            grid=(heads, info.num_active_blocks[0]),
            in_specs=[
                *(of_queries, of_keys, of_keys, of_query_ids, of_key_ids),
                *(of_statistics, of_queries, of_statistics, None, None, of_copies, None, None),
            ],
            out_specs=[of_copies, of_keys, of_keys],
            scratch_shapes=[None, *[pltpu.VMEM((block, width), jnp.float32)] * 2],
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (dq_3HLK, k_HMK, v_HMK)],
        input_output_aliases={given: 0},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("arbitrary", "arbitrary")),
        cost_estimate=pl.CostEstimate(
            flops=10 * heads * length * k_HMK.shape[1] * width,
            transcendentals=heads * length * k_HMK.shape[1],
            bytes_accessed=4 * dq_3HLK.nbytes,
        ),
        name="splash_mha_dkv",
    )(*scalars, *inputs, None, None, dq_3HLK, None, None)
    return scaled(dq_3HLK[0] + dq_3HLK[1] + dq_3HLK[2]), dk_HMK, dv_HMK
