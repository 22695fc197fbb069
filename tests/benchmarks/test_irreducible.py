"""The least loss by the simulator against the error of the best estimator, simulated."""

import numpy as np
import pytest

from benchmarks.irreducible import ROUNDING, derivative, least_loss, video

RED = np.array([230, 30, 30])
THETA = np.array([6.0, 7.0, 0.8, -0.4, 1.9])
ABOUT = (7, 16, 20, RED)


def test_the_clip_is_what_the_simulator_draws():
    from data_pipelines.sources.physics.render import render

    places_T12 = (THETA[:2] + np.arange(7)[:, None] * THETA[2:4])[:, None]
    drawn = render(places_T12, THETA[4:], RED[None].astype(np.uint8), 16, 20) / 127.5 - 2
    np.testing.assert_allclose(video(THETA, *ABOUT), drawn, atol=0.51 / 127.5)


@pytest.mark.parametrize("time", [0.5, 0.97])
def test_no_estimator_does_better_and_the_best_does_as_well(time):
    j_TP5 = derivative(THETA, *ABOUT)
    seen, rest = (part.reshape(-1, 5) for part in (j_TP5[:3], j_TP5[3:]))
    rng = np.random.default_rng(0)
    precision = seen.T @ seen / ROUNDING**2 + ((1 - time) / time) ** 2 * rest.T @ rest
    errors = []
    for _ in range(4000):
        change = rng.normal(size=5)  # of theta, from the point about which J is taken
        given = seen @ change + ROUNDING * rng.normal(size=len(seen))
        noised = (1 - time) * (rest @ change) + time * rng.normal(size=len(rest))
        found = np.linalg.solve(precision, seen.T @ given / ROUNDING**2 + (1 - time) / time**2 * rest.T @ noised)
        errors.append(np.mean((rest @ (found - change)) ** 2) / time**2)
    assert least_loss(j_TP5, 3, time, 0.05) == pytest.approx(np.mean(errors), rel=0.06)


def test_more_given_frames_leave_less_open():
    j_TP5 = derivative(THETA, *ABOUT)
    assert least_loss(j_TP5, 5, 0.9, 0.05) < least_loss(j_TP5, 3, 0.9, 0.05) < least_loss(j_TP5, 2, 0.9, 0.05)
