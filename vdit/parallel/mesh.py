"""The device mesh, made in one place, and the partition specs of what is not a weight."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.batch import PER_TOKEN
from vdit.config import MeshConfig
from vdit.errors import UserError

AXES = ("replica", "fsdp", "context", "tensor")
ROWS = ("replica", "fsdp")
"""Axes over which the rows B of a batch are sharded; the tokens L of a row are sharded over `context`."""

STATE = ("fsdp", "context")
"""Axes over which parameters, optimiser state and average are sharded at rest: all that hold the same slice of heads
and feed-forward, but for `replica`, which may cross slices."""


def make_mesh(config: MeshConfig, devices: list[Any] | None = None) -> Mesh:
    """The explicit mesh over `devices` (default: all of all processes).

    On TPUs the axes follow the wiring; over several slices `replica` crosses them, slice by slice, and the other axes
    stay inside one.

    Raises:
      UserError: if the axis sizes do not multiply to the number of devices, or replica is no multiple of the slices.
    """
    devices = list(jax.devices()) if devices is None else devices
    sizes = list(config.sizes(len(devices)))
    return Mesh(_grid(devices, sizes), AXES, axis_types=(AxisType.Explicit,) * len(AXES))


def _grid(devices: list[Any], sizes: list[int]) -> np.ndarray:
    """Devices in the order of the axes."""
    if devices[0].platform != "tpu":
        return np.array(devices).reshape(sizes)
    slices = len({getattr(device, "slice_index", None) or 0 for device in devices})
    if sizes[0] % slices:
        raise UserError(f"mesh.replica={sizes[0]} is not a multiple of the {slices} slices, which only it may cross")
    if slices == 1:
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    within, across = (sizes[0] // slices, *sizes[1:]), (slices, 1, 1, 1)
    return mesh_utils.create_hybrid_device_mesh(within, across, devices, allow_split_physical_axes=True)


def platform() -> str:
    """The kind of devices of the mesh in use: "cpu", "gpu" or "tpu"; of a topology too, which this machine lacks."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def rows_spec(ndim: int) -> P:
    """Spec of an array whose leading dimension is B and whose others are whole."""
    return P(ROWS, *(None,) * (ndim - 1))


def tokens_spec(ndim: int) -> P:
    """Spec of an array whose leading dimensions are B and L."""
    return P(ROWS, "context", *(None,) * (ndim - 2))


def specs_of(value: Any) -> Any:
    """Specs of arrays whose leading dimension is B; fields of dataclasses marked `PER_TOKEN` lie over `context` too."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return jax.tree.map(lambda array: rows_spec(array.ndim), value)
    out = {}
    for field in dataclasses.fields(value):
        own = getattr(value, field.name)
        out[field.name] = tokens_spec(own.ndim) if field.metadata == PER_TOKEN else specs_of(own)
    return type(value)(**out)


def row_shards(mesh: Mesh) -> int:
    """Over how many shards the rows of a batch are spread."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def row_reader(mesh: Mesh) -> tuple[int, int]:
    """(index, count): this process reads part `index` of `count` equal, contiguous parts of every step's rows.

    Processes whose devices hold the same rows (those of one `context` or `tensor` group) read the same part.
    """
    grid = mesh.devices.reshape(row_shards(mesh), -1)
    return _part_of(np.vectorize(lambda device: device.process_index)(grid), jax.process_index())


def _part_of(process_SD: np.ndarray, process: int) -> tuple[int, int]:
    """`row_reader` from the process of every device; S row shards of D devices.

    Raises:
      UserError: if the row shards of the processes are not equal, contiguous parts.
    """
    owned = [tuple(np.flatnonzero((process_SD == p).any(1))) for p in np.unique(process_SD)]
    parts = sorted(set(owned))
    if sum(map(len, parts)) != len(process_SD) or len({len(part) for part in parts}) != 1:
        raise UserError("config.mesh cuts rows across processes unevenly; make replica x fsdp a multiple or divisor")
    return parts.index(tuple(np.flatnonzero((process_SD == process).any(1)))), len(parts)


def to_global(batch: Any, mesh: Mesh) -> Any:
    """Global arrays, laid out as `specs_of` says, from the rows that this process has read (see `row_reader`)."""
    index, count = row_reader(mesh)

    def place(array: np.ndarray, spec: P) -> jax.Array:
        first, shape = index * len(array), (count * len(array), *array.shape[1:])

        def shard(place: Any) -> np.ndarray:
            start, stop, _ = place[0].indices(shape[0])
            return array[start - first : stop - first, *place[1:]]

        return jax.make_array_from_callback(shape, NamedSharding(mesh, spec), shard)

    return jax.tree.map(place, batch, specs_of(batch))


def process_allgather(array: jax.Array) -> np.ndarray:
    """A global array on this host, gathered from other processes where parts of it are theirs."""
    if not array.is_fully_addressable:
        from jax.experimental import multihost_utils

        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def use_mesh(mesh: Mesh) -> contextlib.AbstractContextManager[Any]:
    """Context in which `mesh` is the one all specs refer to."""
    return jax.set_mesh(mesh)
