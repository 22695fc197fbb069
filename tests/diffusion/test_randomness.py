"""The hash that is written out gives the numbers of jax.random, bit for bit: a seed means what it always meant."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vdit.diffusion import randomness

KEY = jax.random.key(7)
IDS_BN2 = jnp.asarray(np.random.default_rng(0).integers(0, 2**32, (2, 3, 2)), jnp.uint32)
EXAMPLE_BL = jnp.array([[0, 0, 1, 2], [2, 2, 1, 0]])
TOKEN_BL = jnp.array([[0, 1, 5, 2**31 - 1], [3, 3, 0, 8]], jnp.int32)
NUMBERS = (0xFFFFFFFF, 0, 3)


@pytest.fixture(scope="module")
def keys_BN():
    return jax.jit(randomness.example_keys)(KEY, IDS_BN2)


def each(function, depth=2):
    """A compiled function of one key, or number, made one of arrays."""
    for _ in range(depth):
        function = jax.vmap(function)
    return jax.jit(function)


def of_slots(keys_BN):
    return jax.vmap(lambda keys_N, example_L: keys_N[example_L])(keys_BN, EXAMPLE_BL)


def test_keys_of_examples_are_folded_in_halves(keys_BN):
    expected = each(lambda half: jax.random.fold_in(jax.random.fold_in(KEY, half[0]), half[1]))(IDS_BN2)
    np.testing.assert_array_equal(jax.random.key_data(keys_BN), jax.random.key_data(expected))


def test_noise_is_that_of_jax(keys_BN):
    noise_BLP = jax.jit(randomness.token_noise, static_argnums=3)(keys_BN, EXAMPLE_BL, TOKEN_BL, 96)
    expected = each(lambda key, token: jax.random.normal(jax.random.fold_in(key, token), (96,)))
    np.testing.assert_array_equal(noise_BLP, expected(of_slots(keys_BN), TOKEN_BL))


def test_uniform_numbers_of_examples_are_those_of_jax(keys_BN):
    found_DBN = jax.jit(randomness.example_uniform, static_argnums=1)(keys_BN, NUMBERS)
    for found_BN, number in zip(found_DBN, NUMBERS, strict=True):
        expected = each(lambda key, number=number: jax.random.uniform(jax.random.fold_in(key, jnp.uint32(number))))
        np.testing.assert_array_equal(found_BN, expected(keys_BN))


def test_uniform_numbers_of_slots_are_those_of_jax(keys_BN):
    found_BL = jax.jit(randomness.token_uniform, static_argnums=2)(keys_BN, EXAMPLE_BL, 0xFFFFFFFB, TOKEN_BL)
    fold = lambda key, index: jax.random.fold_in(jax.random.fold_in(key, jnp.uint32(0xFFFFFFFB)), index)  # noqa: E731
    expected = each(lambda key, index: jax.random.uniform(fold(key, index)))
    np.testing.assert_array_equal(found_BL, expected(of_slots(keys_BN), TOKEN_BL))
