"""Checksums of arrays, computed where they lie: the same on any mesh, and no array leaves its device for them."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.parallel.mesh import use_mesh


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """A 32-bit checksum of the bits of every array; one flipped bit, or several in one number, always changes it.

    It is the sum, modulo 2^32, of the numbers' bits times odd weights that depend on their place, so it does not depend
    on the order of summation, nor on how the array is divided over devices.
    """
    shardings = [x.sharding for x in arrays.values() if isinstance(x.sharding, NamedSharding)]
    meshes = [sharding.mesh for sharding in shardings if isinstance(sharding.mesh, Mesh)]
    with use_mesh(meshes[0]) if meshes else contextlib.nullcontext():
        sums = np.asarray(_compiled(bool(meshes))(list(arrays.values())))
    return dict(zip(arrays, map(int, sums), strict=True))


@functools.cache
def _compiled(sharded: bool) -> Callable[[list[jax.Array]], jax.Array]:
    def sums(arrays: list[jax.Array]) -> jax.Array:
        return jnp.stack([_checksum(x) for x in arrays])

    return jax.jit(jax.sharding.auto_axes(sums, out_sharding=P()) if sharded else sums)


def _checksum(x: jax.Array) -> jax.Array:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32, 8: jnp.uint32}[x.dtype.itemsize]
    bits = x.astype(jnp.uint8) if x.dtype == bool else jax.lax.bitcast_convert_type(x, unsigned)
    place = jnp.zeros(bits.shape, jnp.uint32)
    for axis, size in enumerate(bits.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
    weight = place * jnp.uint32(2654435761)  # Knuth's multiplicative hash, and one round of murmur's mixing
    weight = (weight ^ (weight >> 15)) * jnp.uint32(2246822519) | jnp.uint32(1)
    return jnp.sum(bits.astype(jnp.uint32) * weight, dtype=jnp.uint32)
