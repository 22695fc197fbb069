"""The rectified flow: paths, velocities and distributions of times."""

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings

from vdit.diffusion import flow

RNG = np.random.default_rng(0)
CLEAN, NOISE = RNG.normal(size=(2, 7, 5)).astype(np.float32)


@pytest.mark.parametrize("time", [0.0, 0.3, 1.0])
def test_paths_are_straight_from_data_to_noise(time):
    found = flow.corrupt(CLEAN, NOISE, np.float32(time))
    np.testing.assert_allclose(found, CLEAN + time * (NOISE - CLEAN), atol=1e-6)
    np.testing.assert_array_equal(flow.corrupt(CLEAN, NOISE, 0.0), CLEAN)
    np.testing.assert_array_equal(flow.corrupt(CLEAN, NOISE, 1.0), NOISE)


def test_velocity_is_the_derivative_of_the_path():
    _, derivative = jax.jvp(lambda t: flow.corrupt(CLEAN, NOISE, t), (0.4,), (1.0,))
    np.testing.assert_allclose(derivative, flow.velocity_target(CLEAN, NOISE), atol=1e-6)


@pytest.mark.parametrize("time", [0.05, 0.2, 0.999, 1.0])
def test_an_exact_prediction_gives_the_velocity_in_both_kinds(time):
    noised = flow.corrupt(CLEAN, NOISE, time)
    target = flow.velocity_target(CLEAN, NOISE)
    np.testing.assert_allclose(flow.velocity(CLEAN, noised, time, "x", 0.05), target, rtol=1e-4, atol=2e-5)
    np.testing.assert_array_equal(flow.velocity(target, noised, time, "v", 0.05), target)


def test_small_times_do_not_blow_up():
    """Below least_time an error of the clean prediction counts 1 / least_time, not 1 / time."""
    right = flow.velocity(CLEAN, CLEAN, 1e-6, "x", 0.05)
    wrong = flow.velocity(CLEAN + 1, CLEAN, 1e-6, "x", 0.05)
    np.testing.assert_allclose(right - wrong, 20, rtol=1e-5)


GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))


@settings(max_examples=50)
@given(grid=GRIDS)
def test_shift_keeps_the_ends_and_the_order(grid):
    time = np.linspace(0, 1, 33, dtype=np.float32)
    shifted = np.asarray(flow.shift_time(time, jnp.asarray(grid)))
    assert shifted[0] == 0
    assert shifted[-1] == pytest.approx(1, abs=1e-6)
    assert (np.diff(shifted) > 0).all()


def test_shift_by_hand():
    def alpha(*grid):
        t = float(flow.shift_time(jnp.float32(0.5), jnp.asarray(grid)))
        return t / (1 - t)  # a/2 / (1 + (a - 1)/2) = a / (1 + a)

    assert alpha(1, 16, 16) == pytest.approx(1, rel=1e-5)
    assert alpha(1, 64, 64) == pytest.approx(3, rel=1e-5)
    assert alpha(9, 16, 16) == pytest.approx(3, rel=1e-5)
    assert alpha(4, 64, 64) == pytest.approx(6, rel=1e-5)
    assert alpha(1, 1, 1) == pytest.approx(1 - 2 * 255 / 3840, rel=1e-5)
    assert alpha(0, 0, 0) >= 0.5, "rows have empty places for examples"


def test_logit_normal_quantiles():
    normal = np.array([-1e4, -1.0, 0.0, 1.0, 1e4], np.float32)
    found = flow.logit_normal(normal, 0.5, 2.0)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.clip(0.5 + 2.0 * normal, -80, 80))), rtol=1e-5, atol=1e-30)


def test_a_constant_shift_multiplies_that_of_the_size():
    time, grid = np.linspace(0, 1, 7), np.array([5, 16, 16])
    both = flow.shift_as_configured(time, grid, True, 3.0)
    np.testing.assert_allclose(both, flow.scale_time(time, 3.0 * np.sqrt(5)), rtol=1e-6)
    np.testing.assert_allclose(flow.shift_as_configured(time, grid, False, 5.0), 5 * time / (1 + 4 * time))
    assert flow.shift_as_configured(time, grid, False, 1.0) is time


@pytest.mark.parametrize("std", [0.25, 1.0])
@pytest.mark.parametrize("time", [0.0, 0.4, 1.0])
def test_scaled_inputs_have_unit_variance_at_every_time(time, std):
    clean, noise = np.random.default_rng(1).normal(size=(2, 40_000)).astype(np.float32)
    scaled = flow.scaled_input(flow.corrupt(std * clean, noise, time), jnp.float32(time), std)
    assert float(scaled.std()) == pytest.approx(1, abs=0.01)
    np.testing.assert_array_equal(flow.scaled_input(noise, jnp.float32(time), 0.0), noise)
