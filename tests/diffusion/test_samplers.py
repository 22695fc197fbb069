"""Samplers against a flow whose solution is known: data with normally distributed elements.

With x_0 ~ N(m, s^2) the best velocity at x_t is
    -m + (t - (1 - t) s^2) / ((1 - t)^2 s^2 + t^2) (x_t - (1 - t) m)
and the flow carries x_1 = z to x_0 = m + s z.
"""

import numpy as np
import pytest
from small_model import clips, pack

from vdit.config import UserError
from vdit.diffusion.flow import shift_time
from vdit.diffusion.samplers import SAMPLERS, guide, sampler_step, schedule

MEAN, STD = 0.7, 0.4


def best_velocity(x: np.ndarray, t: np.ndarray, mean: float = MEAN) -> np.ndarray:
    slope = (t - (1 - t) * STD**2) / ((1 - t) ** 2 * STD**2 + t**2)
    return -mean + slope * (x - (1 - t) * mean)


def solve(name: str, times: np.ndarray, start: np.ndarray, velocity=best_velocity) -> np.ndarray:
    x = start
    for now, after in zip(times[:-1], times[1:], strict=True):
        x = sampler_step(name)(velocity, x, now, after, lambda value: value)
    return x


@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(name, order):
    start = np.random.default_rng(0).normal(size=200)
    steps = np.array([16, 32, 64, 128, 256])
    errors = [np.abs(solve(name, np.linspace(1, 0, n + 1), start) - (MEAN + STD * start)).max() for n in steps]
    slope = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(order, abs=0.1)
    assert errors[-1] < 0.03


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_the_mean_and_spread_of_the_data(name):
    x = solve(name, np.linspace(1, 0, 201), np.random.default_rng(1).normal(size=20_000))
    assert x.mean() == pytest.approx(MEAN, abs=0.02)
    assert x.std() == pytest.approx(STD, abs=0.02)


def test_every_example_has_its_own_times():
    start = np.random.default_rng(2).normal(size=(2, 50))
    times = np.stack([np.linspace(1, 0, 41), np.linspace(1, 0, 41) ** 2], 1)

    x = start
    for now, after in zip(times[:-1], times[1:], strict=True):
        x = sampler_step("heun")(lambda x, t: best_velocity(x, t[:, None]), x, now, after, lambda value: value[:, None])
    for row in range(2):
        np.testing.assert_allclose(x[row], solve("heun", times[:, row], start[row]))


def test_unknown_sampler():
    with pytest.raises(UserError, match="--sampler=ddim is not one of euler, heun"):
        sampler_step("ddim")


def test_guidance():
    conditional, unconditional = np.array([3.0]), np.array([1.0])
    assert guide(conditional, unconditional, 1.0) == 3
    assert guide(conditional, unconditional, 0.0) == 1
    assert guide(conditional, unconditional, 2.5) == 6


@pytest.mark.parametrize("shift", [True, False])
def test_schedule_runs_from_noise_to_data_with_the_shift_of_training(shift):
    grid_BN3 = pack([clips()]).grid_BN3
    times_SBN = schedule(10, grid_BN3, shift)
    assert times_SBN.shape == (11, 1, 6)
    assert times_SBN.dtype == np.float32
    np.testing.assert_allclose(times_SBN[0], 1, rtol=1e-6)
    np.testing.assert_array_equal(times_SBN[-1], 0)
    assert (np.diff(times_SBN, axis=0) < 0).all()
    even = np.linspace(1, 0, 11)
    for n, example in enumerate(clips()):
        expected = shift_time(even, np.array(example.grid)) if shift else even
        np.testing.assert_allclose(times_SBN[:, 0, n], expected, rtol=1e-5, atol=1e-7)
