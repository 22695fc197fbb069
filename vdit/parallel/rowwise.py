"""Work that stays inside a row: run on each device's own rows, so that it can never communicate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vdit.parallel.mesh import rows_spec


def rowwise(function: Callable[..., Any], *arrays: Any) -> Any:
    """Applies `function` to each device's rows; all that it returns has B as its leading dimension.

    Arguments are sharded over rows or whole on every device.

    Explicit sharding turns a gather or scatter inside a row into an all-gather; inside shard_map it stays local.
    """
    shapes = jax.eval_shape(function, *jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arrays))
    out_specs = jax.tree.map(lambda x: rows_spec(x.ndim), shapes)
    return jax.shard_map(function, out_specs=out_specs, check_vma=False)(*arrays)


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
