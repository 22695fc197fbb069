"""Random numbers that are a function of (seed, step, example id, token) and of nothing else.

So they do not change with the packing, the order of rows or the number of hosts, and need no state in a checkpoint.
They are those of jax.random, bit for bit. The hash is written out here because jax.random's own on CPU is a loop that
writes all numbers to memory 20 times; written out, it and what is made of its bits are one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

Key = tuple[jax.Array, jax.Array]
"""The two uint32 halves of a key, arrays of any one shape."""

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
"""Of Threefry."""


def threefry(key: Key, count: jax.Array) -> Key:
    """Threefry-2x32 of 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") of (0, count)."""
    first, second = key
    schedule = first, second, first ^ second ^ np.uint32(PARITY)
    a, b = first, count + second
    for group in range(5):
        for bits in ROTATIONS[group % 2]:
            a = a + b
            b = ((b << np.uint32(bits)) | (b >> np.uint32(32 - bits))) ^ a
        a, b = a + schedule[(group + 1) % 3], b + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return a, b


def example_keys(key: jax.Array, ids_BN2: jax.Array) -> jax.Array:
    """One key per example: the 64-bit id is folded in as two halves. keys_BN."""
    folded = threefry(_halves(key), ids_BN2[..., 0])
    return jax.random.wrap_key_data(jnp.stack(threefry(folded, ids_BN2[..., 1]), axis=-1))


def token_noise(keys_BN: jax.Array, example_BL: jax.Array, token_BL: jax.Array, size: int) -> jax.Array:
    """Standard normal noise of every slot, noise_BLP float32.

    Args:
      keys_BN: key of each example.
      example_BL: index of each slot's example, 0 ... N - 1.
      token_BL: index of the patch within its example.
      size: P.
    """
    key_BL = threefry(_of_slots(keys_BN, example_BL), token_BL.astype(jnp.uint32))
    key_BL1 = key_BL[0][..., None], key_BL[1][..., None]
    unit_BLP = _unit(threefry(key_BL1, jnp.arange(size, dtype=jnp.uint32)))
    # As jax.random.normal: even in (-1, 1), where -1 itself would be minus infinity.
    low = np.nextafter(np.float32(-1), np.float32(0))
    even_BLP = jnp.maximum(low, unit_BLP * (np.float32(1) - low) + low)
    # All that is made of the noise reads it from memory: fused, each would make it anew.
    return jax.lax.optimization_barrier(np.float32(np.sqrt(2)) * jax.lax.erf_inv(even_BLP))


def example_uniform(keys_BN: jax.Array, numbers: Sequence[int]) -> jax.Array:
    """Numbers in [0, 1) of each example, one for each of D `numbers`, uniform_DBN float32."""
    number_D11 = np.array(numbers, np.uint32)[:, None, None]
    return _unit(threefry(threefry(_halves(keys_BN), jnp.asarray(number_D11)), jnp.uint32(0)))


def token_uniform(keys_BN: jax.Array, example_BL: jax.Array, number: int, index_BL: jax.Array) -> jax.Array:
    """A number in [0, 1) of each slot, a function of its example, `number` and the slot's index, uniform_BL float32."""
    key_BL = threefry(_of_slots(keys_BN, example_BL), jnp.uint32(number))
    return _unit(threefry(threefry(key_BL, index_BL.astype(jnp.uint32)), jnp.uint32(0)))


def _halves(key: jax.Array) -> Key:
    data = jax.random.key_data(key)
    return data[..., 0], data[..., 1]


def _of_slots(keys_BN: jax.Array, example_BL: jax.Array) -> Key:
    """The key of each slot's example."""
    first_BN, second_BN = _halves(keys_BN)
    return tuple(jnp.take_along_axis(half_BN, example_BL, axis=1) for half_BN in (first_BN, second_BN))  # type: ignore[return-value]


def _unit(hashed: Key) -> jax.Array:
    """Numbers in [0, 1) of 23 random bits, float32."""
    bits = (hashed[0] ^ hashed[1]) >> np.uint32(9) | np.uint32(0x3F800000)  # the mantissa of a number in [1, 2)
    return jax.lax.bitcast_convert_type(bits, jnp.float32) - np.float32(1)
