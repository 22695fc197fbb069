"""Rotary positions: scores depend on differences of positions, along every axis."""

import hypothesis.strategies as st
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from vdit.models.rotary import FASTEST, THETA, rotary_table, rotate, split_pairs

WIDTH = 16


def turned(x_K: np.ndarray, position: np.ndarray) -> np.ndarray:
    table = rotary_table(jnp.asarray(position, jnp.float32)[None, None], len(x_K))
    return np.asarray(rotate(jnp.asarray(x_K, jnp.float32)[None, None, None], table))[0, 0, 0]


@pytest.mark.parametrize("width", [8, 16, 24, 32, 48, 64, 96, 128])
def test_pairs_fill_the_head_and_favour_no_spatial_axis(width):
    time, row, column = split_pairs(width)
    assert time + row + column == width // 2
    assert row == column
    assert min(time, row) > 0, "an axis would be invisible"


COORDINATE = st.floats(-40, 40, width=16)
POSITION = st.tuples(COORDINATE, COORDINATE, COORDINATE)


@settings(max_examples=15)
@given(a=POSITION, b=POSITION, shift=POSITION)
def test_scores_depend_on_differences_only(a, b, shift):
    rng = np.random.default_rng(0)
    q, k = rng.normal(size=(2, WIDTH))
    a, b, shift = map(np.array, (a, b, shift))
    score = turned(q, a) @ turned(k, b)
    assert turned(q, a + shift) @ turned(k, b + shift) == pytest.approx(score, abs=2e-4)
    assert np.linalg.norm(turned(q, a)) == pytest.approx(np.linalg.norm(q), rel=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_is_seen(axis):
    q = np.ones(WIDTH)
    moved = np.zeros(3)
    moved[axis] = 1.0
    assert abs(turned(q, moved) @ q - q @ q) > 0.1


def test_position_zero_changes_nothing():
    q = np.random.default_rng(0).normal(size=WIDTH)
    np.testing.assert_allclose(turned(q, np.zeros(3)), q, rtol=1e-6)


def test_angles_by_hand():
    """The first half's element i turns with element i of the second half by position * theta^(-i / pairs)."""
    position = np.array([2.0, 3.0, 5.0])
    angle = np.concatenate(
        [position[a] * FASTEST * THETA ** -(np.arange(n) / n) for a, n in enumerate(split_pairs(WIDTH))]
    )
    q = np.random.default_rng(1).normal(size=WIDTH)
    z = (q[: WIDTH // 2] + 1j * q[WIDTH // 2 :]) * np.exp(1j * angle)
    np.testing.assert_allclose(turned(q, position), np.concatenate([z.real, z.imag]), atol=1e-5)
