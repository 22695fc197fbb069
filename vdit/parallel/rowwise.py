"""Work that stays inside a row: run on each device's own rows and tokens, so that it can never gather them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vdit.errors import UserError
from vdit.parallel.mesh import rows_spec, tokens_spec


def rowwise(function: Callable[..., Any], *arrays: Any) -> Any:
    """Applies `function`, which treats every token alike, to each device's rows and tokens, without communication.

    Arguments are sharded over rows, over rows and tokens, or whole on every device. All that is returned has B as its
    leading dimension; where the second grows with the number of tokens it is L, and sharded like the tokens.

    Explicit sharding turns a gather or scatter inside a row into an all-gather; inside shard_map it stays local.
    """
    shapes, longer = (jax.eval_shape(function, *_shapes(arrays, tokens)) for tokens in (1, 2))

    def spec(shape: Any, long: Any) -> jax.P:
        return rows_spec(shape.ndim) if shape.shape == long.shape else tokens_spec(shape.ndim)

    out_specs = jax.tree.map(spec, shapes, longer)
    return jax.shard_map(function, out_specs=out_specs, check_vma=False)(*arrays)


def _shapes(arrays: Any, factor: int) -> Any:
    """Shapes of the arguments with `factor` times as many tokens."""

    def shape(x: jax.Array) -> jax.ShapeDtypeStruct:
        spec = jax.typeof(x).sharding.spec
        sizes = [size * factor if axis == "context" else size for size, axis in zip(x.shape, spec, strict=True)]
        return jax.ShapeDtypeStruct(sizes, x.dtype)

    return jax.tree.map(shape, arrays)


def sum_of_segments(values_BL: jax.Array, segments_BL: jax.Array, count: int) -> jax.Array:
    """Sums of the values of segments 1 ... count of each row, sums_BN; a row may lie on several devices."""

    def sums(values_BL: jax.Array, segments_BL: jax.Array) -> jax.Array:
        of_row = jax.vmap(lambda value_L, segment_L: jax.ops.segment_sum(value_L, segment_L, count + 1)[1:])
        return jax.lax.psum(of_row(values_BL, segments_BL), "context")

    return jax.shard_map(sums, out_specs=rows_spec(2), check_vma=False)(values_BL, segments_BL)


def split_rows(tree: Any, parts: int) -> Any:
    """Arrays _AB... from arrays _B...: each device's rows in `parts` parts, without communication.

    Raises:
      UserError: if the rows of a device do not make so many parts.
    """

    def split(x: jax.Array) -> jax.Array:
        if len(x) % parts:
            raise UserError(f"optimizer.accumulate={parts} does not divide the {len(x)} rows of a step on one device")
        return x.reshape(parts, len(x) // parts, *x.shape[1:])

    def spread(x: jax.Array) -> jax.Array:
        return jax.shard_map(split, out_specs=jax.P(None, *jax.typeof(x).sharding.spec), check_vma=False)(x)

    return jax.tree.map(spread, tree)


def take(table_BKD: jax.Array, index_BL: jax.Array) -> jax.Array:
    """Rows of each row's own table: out[b, l] = table[b, index[b, l]].

    Returns:
      array_BLD; its gradient is a sum by one-hot matmul, which is faster than a scatter on every backend.
    """
    return rowwise(_take, table_BKD, index_BL)


@jax.custom_vjp
def _take(table_BKD: jax.Array, index_BL: jax.Array) -> jax.Array:
    return jnp.take_along_axis(table_BKD, index_BL[..., None], axis=1)


def _take_forward(table_BKD: jax.Array, index_BL: jax.Array) -> tuple[jax.Array, tuple[jax.Array, int]]:
    return _take(table_BKD, index_BL), (index_BL, table_BKD.shape[1])


def _take_backward(saved: tuple[jax.Array, int], grad_BLD: jax.Array) -> tuple[jax.Array, None]:
    index_BL, size = saved
    rows = []
    for index_L, grad_LD in zip(index_BL, grad_BLD, strict=True):  # 2-D matmuls: batched ones are slow on CPU
        hot_KL = (index_L[None] == jnp.arange(size)[:, None]).astype(grad_LD.dtype)
        rows.append(hot_KL @ grad_LD)
    return jnp.stack(rows), None


_take.defvjp(_take_forward, _take_backward)
