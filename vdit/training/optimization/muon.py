"""Muon: the momentum of every matrix of the blocks, with its singular values made about equal (Jordan et al. 2024)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from vdit.flops import NEWTON_SCHULZ
from vdit.parallel.mesh import AXES

BETA = 0.95
"""Decay of the momentum, with Nesterov's look ahead, as in Jordan et al."""

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the Newton-Schulz iteration: singular values end between about 0.7 and 1.2."""

TOGETHER = 2**22
"""Numbers in matrices that are made even together: their copies fit the caches of a CPU, and any memory."""


def uses_muon(param: nnx.Variable) -> bool:
    """Whether a parameter is a stack of matrices, one for each block; all else is Adam's."""
    metadata = param.get_metadata()
    return metadata["role"] == "matrix" and param[...].ndim > metadata["ndim"]


def orthogonalise(x_SMN: jax.Array) -> jax.Array:
    """The nearest matrices with orthonormal rows (or columns, where there are fewer), roughly, by Newton-Schulz."""
    wide = x_SMN.shape[1] <= x_SMN.shape[2]
    x = x_SMN if wide else x_SMN.swapaxes(1, 2)
    x /= jnp.linalg.norm(x, axis=(1, 2), keepdims=True) + 1e-8
    a, b, c = COEFFICIENTS
    for _ in range(NEWTON_SCHULZ):
        gram = x @ x.swapaxes(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.swapaxes(1, 2)


def shape_factor(param: nnx.Variable) -> float:
    """sqrt(outputs / inputs), by which an orthogonal update moves outputs alike at every width.

    An update of that spectral norm changes a matrix's outputs by about the rate, whatever its shape (Yang, Simon &
    Bernstein 2023, condition 1).
    """
    metadata = param.get_metadata()
    own = param[...].shape[-metadata["ndim"] :]
    separate = math.prod(own[axis] for axis in metadata["separate"])
    return math.sqrt(math.prod(own) / separate / metadata["fan_in"] ** 2)


def scale_by_muon() -> optax.GradientTransformation:
    """Momentum, orthogonalised.

    Where parameters are sharded each device gathers one matrix at a time; small ones that are not are done together.
    """

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads: Any, momentum: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        momentum = jax.tree.map(lambda m, g: BETA * m + g, momentum, grads)
        ahead = jax.tree.map(lambda m, g: BETA * m + g, momentum, grads)
        every, structure = jax.tree.flatten(ahead, is_leaf=lambda node: isinstance(node, nnx.Variable))
        own = [param for param in every if jax.tree.leaves(param)]  # the others are masked: they are Adam's
        if all(_is_whole(param) for param in own) and sum(param[...].size for param in own) <= TOGETHER:
            found: Iterator[nnx.Variable] = iter(_directions(own))
        else:
            found = map(_direction, own)
        directions = [next(found) if jax.tree.leaves(param) else param for param in every]
        return jax.tree.unflatten(structure, directions), momentum

    return optax.GradientTransformation(init, update)


def _is_whole(param: nnx.Variable) -> bool:
    """Whether every device holds all of a parameter."""
    sizes, spec = jax.sharding.get_abstract_mesh().shape, jax.typeof(param[...]).sharding.spec
    named = [axes if isinstance(axes, tuple) else (axes,) for axes in spec if axes]
    return all(sizes[axis] == 1 for axes in named for axis in axes)


def _unsharded(x: jax.Array) -> jax.Array:
    return jax.sharding.reshard(x, P(*(None,) * x.ndim))


def _directions(params: Sequence[nnx.Variable]) -> list[nnx.Variable]:
    """Directions of parameters that every device holds: all matrices of one shape at once, shared out to the devices.

    Products of small matrices take less time than what surrounds each of them.
    """
    parts = [_as_matrices(_unsharded(param[...]), param) for param in params]
    even = [part for part, _ in parts]
    for shape in {part.shape[1:] for part in even}:
        of_shape = [i for i, (part, _) in enumerate(parts) if part.shape[1:] == shape]
        stacked = orthogonalise(_shared(jnp.concatenate([even[i] for i in of_shape])))
        ends = np.cumsum([len(even[i]) for i in of_shape])[:-1]
        for i, matrices_SMN in zip(of_shape, jnp.split(_unsharded(stacked), ends), strict=True):
            even[i] = matrices_SMN
    return [
        param.replace(jax.sharding.reshard(back(x), jax.typeof(param[...]).sharding.spec))
        for param, x, (_, back) in zip(params, even, parts, strict=True)
    ]


def _shared(x_SMN: jax.Array) -> jax.Array:
    """The matrices in equal parts on the devices, where they make such parts."""
    devices = jax.sharding.get_abstract_mesh().size
    return x_SMN if len(x_SMN) % devices else jax.sharding.reshard(x_SMN, P(AXES, None, None))


def _direction(param: nnx.Variable) -> nnx.Variable:
    """The direction of one parameter, one block after another."""

    def of_block(x: jax.Array) -> jax.Array:
        spec = jax.typeof(x).sharding.spec
        matrices_SMN, back = _as_matrices(_unsharded(x)[None], param)
        return jax.sharding.reshard(back(orthogonalise(matrices_SMN))[0], spec)

    return param.replace(jax.lax.map(of_block, param[...]))


def _as_matrices(x: jax.Array, param: nnx.Variable) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
    """The matrices of some blocks of a parameter, matrices_SMN float32 with M <= N, and the way back."""
    metadata = param.get_metadata()
    separate = [axis + 1 for axis in metadata["separate"]]
    leading = range(1, 1 + len(separate))
    front = jnp.moveaxis(x, separate, leading)
    matrices_SMN = front.reshape(math.prod(front.shape[: 1 + len(separate)]), metadata["fan_in"], -1)
    tall = matrices_SMN.shape[1] > matrices_SMN.shape[2]

    def back(even_SMN: jax.Array) -> jax.Array:
        even_SMN = even_SMN.swapaxes(1, 2) if tall else even_SMN
        return jnp.moveaxis(even_SMN.reshape(front.shape), leading, separate).astype(x.dtype)

    return (matrices_SMN.swapaxes(1, 2) if tall else matrices_SMN).astype(jnp.float32), back
