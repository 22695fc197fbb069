"""How a weight is declared: shape, partition spec and muP role on one line."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

ROLES = ("input", "hidden", "output", "vector")
"""muP roles (Yang et al. 2022, table 8). input: only the outputs grow with width; hidden: both sides; output: only the inputs; vector: biases,
norms and tables, which have one growing side."""


def weight(
    rngs: nnx.Rngs, shape: tuple[int, ...], spec: P, role: str, *, fan_in: int = 0, fill: float = 0.0
) -> nnx.Param:
    """A float32 parameter.

    Args:
      rngs: source of the key.
      shape: its shape.
      spec: its partition spec over the mesh axes.
      role: one of `ROLES`; the optimizer scales the learning rate by it.
      fan_in: inputs that are summed; the weight is normal with variance 1 / fan_in. 0 fills it with `fill`.
      fill: constant value where fan_in is 0.

    Raises:
      ValueError: for an unknown role.
    """
    if role not in ROLES:
        raise ValueError(f"role={role!r} is not one of {ROLES}")
    if fan_in:
        value = jax.random.normal(rngs.params(), shape, jnp.float32) * fan_in**-0.5
    else:
        value = jnp.full(shape, fill, jnp.float32)
    return nnx.Param(jax.sharding.reshard(value, spec), role=role)


def use(param: nnx.Param, dtype: jnp.dtype) -> jax.Array:
    """The weight in the compute dtype, gathered over the fsdp axis (it is sharded at rest, whole while used)."""
    value = param[...].astype(dtype)
    spec = jax.typeof(value).sharding.spec
    return jax.sharding.reshard(value, P(*(None if axis == "fsdp" else axis for axis in spec)))


def fit_spec(shape: tuple[int, ...], spec: P, sizes: dict[str, int]) -> None:
    """Checks that every sharded dimension divides by its mesh axis.

    Raises:
      ValueError: naming the dimension and the axis.
    """
    for dimension, axis in zip(shape, spec, strict=False):
        if axis is not None and dimension % sizes[axis]:
            raise ValueError(f"a weight of shape {shape} has {dimension}, which mesh.{axis}={sizes[axis]} does not divide")
