"""Muon: the momentum of every matrix of the blocks, with its singular values made about equal (Jordan et al. 2024)."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import PartitionSpec as P

from vdit.flops import NEWTON_SCHULZ

BETA = 0.95
"""Decay of the momentum, with Nesterov's look ahead, as in Jordan et al."""

COEFFICIENTS = 3.4445, -4.7750, 2.0315
"""Of the Newton-Schulz iteration: singular values end between about 0.7 and 1.2."""


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
    """Momentum, orthogonalised block by block: each device gathers one matrix at a time, whatever the mesh."""

    def init(params: Any) -> Any:
        return jax.tree.map(jnp.zeros_like, params)

    def update(grads: Any, momentum: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        momentum = jax.tree.map(lambda m, g: BETA * m + g, momentum, grads)
        ahead = jax.tree.map(lambda m, g: BETA * m + g, momentum, grads)
        is_param = lambda node: isinstance(node, nnx.Variable)  # noqa: E731
        return jax.tree.map(_direction, ahead, is_leaf=is_param), momentum

    return optax.GradientTransformation(init, update)


def _direction(param: nnx.Variable) -> nnx.Variable:
    metadata = param.get_metadata()
    if not jax.tree.leaves(param):  # masked: it is Adam's
        return param
    separate, fan_in = metadata["separate"], metadata["fan_in"]

    def of_block(x: jax.Array) -> jax.Array:
        spec = jax.typeof(x).sharding.spec
        whole = jax.sharding.reshard(x, P(*(None,) * x.ndim)).astype(jnp.float32)
        front = jnp.moveaxis(whole, separate, range(len(separate)))
        count = math.prod(front.shape[: len(separate)])
        even = orthogonalise(front.reshape(count, fan_in, -1)).reshape(front.shape)
        return jax.sharding.reshard(jnp.moveaxis(even, range(len(separate)), separate).astype(x.dtype), spec)

    return param.replace(jax.lax.map(of_block, param[...]))
