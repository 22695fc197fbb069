"""How a weight is declared: shape, partition spec and muP role on one line."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

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


class Adapted(nnx.Module):
    """A frozen matrix with a low-rank adapter (LoRA, Hu et al. 2021): W + scale * A B.

    Attributes:
      base: W (or its whole numbers); its axes are those of what it sums over, of what lies apart, of its outputs.
      step: one for every output, by which whole numbers are multiplied; None where base holds the weights themselves.
      a: A, W's shape with the rank for its outputs.
      b: B, W's shape with the rank, as the first axis, for what it sums over.
      scale: alpha / rank.
    """

    def __init__(self, base: nnx.Param, step: nnx.Param | None, a: nnx.LoRAParam, b: nnx.LoRAParam, scale: float):
        self.base, self.step, self.a, self.b, self.scale = base, step, a, b, scale


@dataclasses.dataclass(frozen=True)
class LowRank:
    """An `Adapted` matrix in use: its arrays in the compute dtype, gathered."""

    base: jax.Array
    a: jax.Array
    b: jax.Array
    scale: float

    def __getitem__(self, index: Any) -> LowRank:
        """One of several matrices apart; they lie along the same axis of all three arrays."""
        return LowRank(self.base[index], self.a[index], self.b[index], self.scale)


Matrix = jax.Array | LowRank
"""A matrix as it is used."""


def use(param: nnx.Param | Adapted, dtype: jnp.dtype) -> Any:
    """The weight in the compute dtype, gathered over the `STATE` axes (it is sharded at rest, whole while used).

    Returns:
      the array; a `LowRank` for an `Adapted` matrix.
    """
    if not isinstance(param, Adapted):
        return _gathered(param[...].astype(dtype))
    if param.step is None:
        base = _gathered(param.base[...].astype(dtype))
    else:  # gathered as whole numbers, which are half as many bytes
        base = _gathered(param.base[...]).astype(dtype) * _gathered(param.step[...]).astype(dtype)
    return LowRank(base, _gathered(param.a[...].astype(dtype)), _gathered(param.b[...].astype(dtype)), param.scale)


def _gathered(value: jax.Array) -> jax.Array:
    spec = jax.typeof(value).sharding.spec
    whole = jax.sharding.reshard(value, P(*(None if axes == STATE else axes for axes in spec)))
    return checkpoint_name(whole, GATHERED)


def product(equation: str, x: jax.Array, matrix: Matrix, out_sharding: P | None = None) -> jax.Array:
    """jnp.einsum of tokens and a matrix in use, "bld,dhk->bhlk", say; an adapter's share is added.

    x A B is computed from the left, so that neither A B nor its gradient is ever made, nor the gradient of W.
    """
    if not isinstance(matrix, LowRank):
        return _of_array(equation, out_sharding, x, matrix)
    of_x, of_matrix, of_out = equation.replace("->", ",").split(",")
    inputs = "".join(axis for axis in of_matrix if axis not in of_out)
    apart = of_matrix[len(inputs) : matrix.a.ndim - 1]
    kept = "".join(axis for axis in of_x if axis not in inputs)
    outputs = of_matrix[len(inputs) + len(apart) :]
    specs = dict(zip(of_x, jax.typeof(x).sharding.spec, strict=True))
    low_sharding = P(*(None for _ in apart), *(specs[axis] for axis in kept), None)
    low = jnp.einsum(f"{of_x},{inputs}{apart}r->{apart}{kept}r", x, matrix.a, out_sharding=low_sharding)
    added = jnp.einsum(f"{apart}{kept}r,r{apart}{outputs}->{of_out}", low, matrix.b, out_sharding=out_sharding)
    return jnp.einsum(equation, x, matrix.base, out_sharding=out_sharding) + matrix.scale * added


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _of_array(equation: str, out_sharding: P | None, x: jax.Array, matrix: jax.Array) -> jax.Array:
    """The product with a plain matrix.

    Its gradient by the matrix is a product of x, which may be transposed once for several matrices, with the gradient
    of each; JAX's own transposes the other factor, and on CPU all elementwise work that makes it is done twice.
    """
    return jnp.einsum(equation, x, matrix, out_sharding=out_sharding)


def _of_array_forward(
    equation: str, out_sharding: P | None, x: jax.Array, matrix: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _of_array(equation, out_sharding, x, matrix), (x, matrix)


def _of_array_backward(
    equation: str, out_sharding: P | None, kept: tuple[jax.Array, jax.Array], grad: jax.Array
) -> tuple[jax.Array, jax.Array]:
    del out_sharding
    x, matrix = kept
    of_x, of_matrix, of_out = equation.replace("->", ",").split(",")
    spec_x, spec_matrix = (jax.typeof(array).sharding.spec for array in kept)
    return (
        jnp.einsum(f"{of_out},{of_matrix}->{of_x}", grad, matrix, out_sharding=spec_x),
        jnp.einsum(f"{of_x},{of_out}->{of_matrix}", x, grad, out_sharding=spec_matrix),
    )


_of_array.defvjp(_of_array_forward, _of_array_backward)
