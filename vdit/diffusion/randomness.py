"""Random numbers that are a function of (seed, step, example id, token) and of nothing else.

So they do not change with the packing, the order of rows or the number of hosts, and need no state in a checkpoint.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def example_keys(key: jax.Array, ids_BN2: jax.Array) -> jax.Array:
    """One key per example: the 64-bit id is folded in as two halves. keys_BN."""
    fold = jax.vmap(jax.vmap(lambda half: jax.random.fold_in(jax.random.fold_in(key, half[0]), half[1])))
    return fold(ids_BN2)


def token_noise(keys_BN: jax.Array, example_BL: jax.Array, token_BL: jax.Array, size: int) -> jax.Array:
    """Standard normal noise of every slot, noise_BLP float32.

    Args:
      keys_BN: key of each example.
      example_BL: index of each slot's example, 0 ... N - 1.
      token_BL: index of the patch within its example.
      size: P.
    """

    def row(keys_N: jax.Array, example_L: jax.Array, token_L: jax.Array) -> jax.Array:
        keys_L = jax.vmap(jax.random.fold_in)(keys_N[example_L], token_L)
        return jax.vmap(lambda key: jax.random.normal(key, (size,), jnp.float32))(keys_L)

    return jax.vmap(row)(keys_BN, example_BL, token_BL)


def example_uniform(keys_BN: jax.Array, number: int) -> jax.Array:
    """A number in [0, 1) of each example, another for every `number`, uniform_BN float32."""
    draw = lambda key: jax.random.uniform(jax.random.fold_in(key, number))  # noqa: E731
    return jax.vmap(jax.vmap(draw))(keys_BN)


def token_uniform(keys_BN: jax.Array, example_BL: jax.Array, number: int, index_BL: jax.Array) -> jax.Array:
    """A number in [0, 1) of each slot, a function of its example, `number` and the slot's index, uniform_BL float32."""

    def row(keys_N: jax.Array, example_L: jax.Array, index_L: jax.Array) -> jax.Array:
        draw = lambda key, i: jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, number), i))  # noqa: E731
        return jax.vmap(draw)(keys_N[example_L], index_L)

    return jax.vmap(row)(keys_BN, example_BL, index_BL)
