"""What is written to memory before it is used, and what the backward pass recomputes."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp


def optimization_barrier(x: jax.Array) -> jax.Array:
    """An array that is in memory before it is used.

    Elementwise work that XLA fuses into a matrix product is repeated for every tile of it; by the TPU compiler's own
    count the product then runs at 0.6 to 0.7 of its peak instead of 0.9.
    """
    return jax.lax.optimization_barrier(x)


def apart(x: jax.Array) -> jax.Array:
    """The same numbers, which XLA on CPU does not make within what reads them; a barrier is gone by then.

    Its library for CPUs takes a sum along a short axis together with the elementwise work around it, and is then up to
    five times slower than both.
    """
    dtype = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, dtype.nexp, dtype.nmant)


def recomputed(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """An elementwise function of which the backward pass keeps only the arguments and recomputes the rest.

    The intermediate is as large as the arguments: on CPU, writing it costs more than computing it twice.
    """

    def backward(arguments: tuple[jax.Array, ...], grad: jax.Array) -> tuple[jax.Array, ...]:
        return jax.vjp(function, *arguments)[1](grad)

    kept = jax.custom_vjp(function)
    kept.defvjp(lambda *arguments: (function(*arguments), arguments), backward)
    return kept
