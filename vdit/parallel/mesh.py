"""The device mesh, made in one place, and the partition specs of what is not a weight."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.config import MeshConfig, UserError

AXES = ("replica", "fsdp", "context", "tensor")
ROWS = ("replica", "fsdp")
"""Axes over which the rows B of a batch are sharded."""


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """The explicit mesh over `devices` (default: all of all processes).

    Raises:
      UserError: if the axis sizes do not multiply to the number of devices.
    """
    devices = list(jax.devices()) if devices is None else devices
    sizes = [config.replica, config.fsdp, config.context, config.tensor]
    if sizes.count(-1) > 1 or any(size < 1 and size != -1 for size in sizes):
        raise UserError(f"mesh sizes {dict(zip(AXES, sizes, strict=True))} must be positive, one of them may be -1")
    if -1 in sizes:
        rest = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = max(1, len(devices) // rest)
    if math.prod(sizes) != len(devices):
        axes = dict(zip(AXES, sizes, strict=True))
        raise UserError(f"config.mesh {axes} needs {math.prod(sizes)} devices, there are {len(devices)}")
    grid = np.array(devices).reshape(sizes)
    return Mesh(grid, AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def rows_spec(ndim: int) -> P:
    """Spec of an array whose leading dimension is B and whose others are whole."""
    return P(ROWS, *(None,) * (ndim - 1))


def row_shards(mesh: Mesh) -> int:
    """Over how many shards the rows of a batch are spread."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def to_global(batch: Any, mesh: Mesh) -> Any:
    """Global arrays sharded over rows, from this process's NumPy rows."""

    def place(array: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(NamedSharding(mesh, rows_spec(array.ndim)), array)

    return jax.tree.map(place, batch)


def use_mesh(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Context in which `mesh` is the one all specs refer to."""
    return jax.set_mesh(mesh)
