"""How a weight is declared: shape, partition spec and muP role on one line."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import PartitionSpec as P

from vdit.errors import UserError
from vdit.parallel.mesh import STATE

ROLES = ("matrix", "output", "vector")
"""What a weight is to muP. matrix: sums over fan_in inputs; output: the last matrix, whose sum the model divides by its
width; vector: biases, gains and tables, which sum over nothing."""

GATHERED = "gathered weight"
"""Name of a weight as it is used, for remat policies."""


def weight(
    rngs: nnx.Rngs,
    shape: tuple[int, ...],
    spec: P,
    role: str,
    *,
    fan_in: int = 1,
    zero: bool = False,
    fill: float = 0.0,
    separate: tuple[int, ...] = (),
) -> nnx.Param:
    """A float32 parameter, sharded by `spec` over the mesh in use.

    Args:
      rngs: source of the key.
      shape: its shape.
      spec: its partition spec over the mesh axes.
      role: one of `ROLES`; with fan_in it decides the learning rate (training.optimization).
      fan_in: inputs that a matrix sums over; it starts normal with variance 1 / fan_in.
      zero: a matrix that starts at zero instead.
      fill: value at which a vector starts.
      separate: axes along which matrices of their own lie, such as those of q, k and v.

    Raises:
      ValueError: for an unknown role.
      UserError: if an axis of the mesh does not divide the dimension it shards.
    """
    sizes = jax.sharding.get_abstract_mesh().shape
    for dimension, axes in zip(shape, spec, strict=True):
        named = {axis: sizes[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()) if sizes[axis] > 1}
        if dimension % math.prod(named.values()):
            said = " x ".join(f"mesh.{axis}={size}" for axis, size in named.items())
            raise UserError(f"{said} does not divide {dimension} of a weight of shape {shape}; take a divisor")
    if role not in ROLES:
        raise ValueError(f"role={role!r} is not one of {ROLES}")
    if role == "vector" or zero:
        value = jnp.full(shape, fill, jnp.float32)
    else:
        value = jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5
    return nnx.Param(jax.sharding.reshard(value, spec), role=role, fan_in=fan_in, ndim=len(shape), separate=separate)


def use(param: nnx.Param, dtype: jnp.dtype) -> jax.Array:
    """The weight in the compute dtype, gathered over the `STATE` axes (it is sharded at rest, whole while used)."""
    value = param[...].astype(dtype)
    spec = jax.typeof(value).sharding.spec
    whole = jax.sharding.reshard(value, P(*(None if axes == STATE else axes for axes in spec)))
    return checkpoint_name(whole, GATHERED)
