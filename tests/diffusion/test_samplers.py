"""Samplers against a process whose solution is known: data with normally distributed elements.

With x_0 ~ N(m, s^2) and x_t = a x_0 + b e the best clean estimate is m + s^2 a / (a^2 s^2 + b^2) (x_t - a m), and the
flow from noise carries x_t to m + s z where z = (x_t - a m) / sqrt(a^2 s^2 + b^2).
"""

import numpy as np
import pytest

from vdit.diffusion.samplers import FLOW, SAMPLERS, TERMS, VP, Process, heun, plan
from vdit.errors import UserError

MEAN, STD = 0.7, 0.4
START = np.random.default_rng(0).normal(size=200)


def best_estimate(x: np.ndarray, t: float, process: Process) -> np.ndarray:
    a, b = process.signal(t), process.noise(t)
    return MEAN + STD**2 * a / (a**2 * STD**2 + b**2) * (x - a * MEAN)


def solution(t: float, process: Process) -> np.ndarray:
    """Where the flow from `START` is at time t."""
    a, b = process.signal(t), process.noise(t)
    return a * MEAN + np.hypot(a * STD, b) * START


def solve(name: str, times: np.ndarray, process: Process = FLOW, start: np.ndarray = START) -> np.ndarray:
    x = base = start
    before = earlier = np.full_like(start, np.nan)  # not known at first, so of weight 0
    for t, weights_25 in zip(*plan(name, times, process), strict=True):
        now = best_estimate(x, t, process)
        terms = np.stack([x, base, now, before, earlier])
        x, base = (weights_25[:, :, None] * np.where(weights_25[:, :, None] == 0, 0, terms)).sum(1)
        before, earlier = now, before
    return x


def order_between(name: str, process: Process, first: float, last: float) -> float:
    """By how much the logarithm of the error falls with that of the number of steps."""
    steps = np.array([128, 256, 512, 1024])
    begin, end = (solution(t, process) for t in (first, last))
    errors = [np.abs(solve(name, np.linspace(first, last, n + 1), process, begin) - end).max() for n in steps]
    assert errors[-1] < 3e-3
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


CASES = [
    *(("euler", FLOW, 1), ("heun", FLOW, 2), ("dpm++", FLOW, 2), ("unipc", FLOW, 2)),
    *(("euler", VP, 1), ("dpm++", VP, 2), ("unipc", VP, 2)),
]


@pytest.mark.parametrize(("name", "process", "order"), CASES)
def test_order_of_convergence(name, process, order):
    assert order_between(name, process, 0.8, 0.1) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize(("name", "process", "order"), CASES)
def test_order_from_noise_to_data(name, process, order):
    """Even times are no even steps of the log signal-to-noise ratio, which costs DPM-Solver a logarithm."""
    assert order_between(name, process, 1.0, 0.0) == pytest.approx(order, abs=0.25)


@pytest.mark.parametrize("name", SAMPLERS)
def test_samples_have_the_mean_and_spread_of_the_data(name):
    x = solve(name, np.linspace(1, 0, 101), start=np.random.default_rng(1).normal(size=20_000))
    assert x.mean() == pytest.approx(MEAN, abs=0.02)
    assert x.std() == pytest.approx(STD, abs=0.02)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_few_steps(name, steps):
    """The last evaluation's estimate is the result, and weights of what is not known yet are 0."""
    times = np.linspace(1, 0, steps + 1)
    found = plan(name, times)
    assert len(found.times_E) == (2 * steps - 1 if name == "heun" else steps)
    assert found.weights_E25.shape == (len(found.times_E), 2, len(TERMS))
    assert np.isfinite(found.weights_E25).all()
    np.testing.assert_allclose(found.weights_E25[-1, 0], [0, 0, 1, 0, 0], atol=1e-12)
    assert np.isfinite(solve(name, times)).all()


def test_unknown_sampler():
    with pytest.raises(UserError, match="--sampler=ddim is not one of euler, heun"):
        plan("ddim", np.linspace(1, 0, 3))
    with pytest.raises(ValueError, match="flow only"):
        heun(np.linspace(1, 0, 3), VP)
