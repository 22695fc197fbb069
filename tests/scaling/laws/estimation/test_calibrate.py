import numpy as np
import pytest

from vdit.scaling.laws.approaches.parametric import Form, fit_law, resample
from vdit.scaling.laws.estimation import calibrate
from vdit.scaling.laws.estimation.calibrate import calibrated
from vdit.scaling.laws.estimation.robust import minimise

WIDE = np.array([[-1e6, 1e6]] * 2)


@pytest.mark.parametrize("spread", [0.5, 0.75, 1.0])
def test_spread_of_the_truth_is_seen_by_its_ranks(spread):
    rng = np.random.default_rng(0)
    truth_W1, drawn_WK = spread * rng.normal(size=(40_000, 1)), rng.normal(size=(40_000, calibrate._DRAWS))
    below_W1 = (drawn_WK < truth_W1).sum(1)[:, None]
    assert calibrate._stretch(below_W1)[0] == pytest.approx(spread, abs=0.06)


def test_simulated_noise_has_the_sizes_of_residuals_but_no_more_zeros():
    residual_R = np.array([0.0, 0.0, 1.0, -2.0, 3.0])
    drawn_WR = calibrate._noise(residual_R, 2, np.random.default_rng(0))
    assert drawn_WR.shape == (calibrate._WORLDS, 5) and np.abs(drawn_WR).max() < 3
    assert abs(drawn_WR.mean()) < 0.3 and np.median(np.abs(drawn_WR)) == pytest.approx(1.0, abs=0.25)


def line(rows, seed):
    """Draws of a line through `rows` runs by the sum of absolute residuals, before and after; the truth is 0."""
    rng = np.random.default_rng(seed)
    x_R, target_R = np.linspace(-1, 1, rows), rng.normal(size=rows)
    slopes_FR = np.stack([np.ones(rows), x_R])

    def model(theta_KF, lanes_K):
        return theta_KF @ slopes_FR, np.tile(slopes_FR, (len(theta_KF), 1, 1))

    def fitted(starts_KF, weights_KR):
        return minimise(model, target_R, starts_KF, weights_KR, delta=1e-3, bounds_P2=WIDE)[0]

    def weights(count, seed):
        return resample(x_R, x_R, count, seed)

    best_F = fitted(np.zeros((1, 2)), np.ones((1, rows)))[0]
    drawn_KF = fitted(np.tile(best_F, (200, 1)), weights(200, seed))
    after = calibrated(drawn_KF, model, target_R, best_F, weights, delta=1e-3, bounds_F2=WIDE, seed=1)
    return drawn_KF, after


def test_draws_of_few_runs_come_closer_to_their_median():
    ratios = []
    for seed in range(5):
        drawn, after = line(10, seed)
        np.testing.assert_allclose(np.median(after, 0), np.median(drawn, 0), atol=1e-9)
        ratios.append(np.ptp(after, axis=0) / np.ptp(drawn, axis=0))
    assert 0.7 < np.mean(ratios) < 0.97


def test_draws_of_many_runs_stay():
    drawn, after = line(40, seed=0)
    np.testing.assert_array_equal(drawn, after)


def test_tied_exponents_and_a_known_floor_stay_so():
    rng = np.random.default_rng(0)
    n, d = rng.lognormal(18, 1, 24), rng.lognormal(22, 1, 24)
    loss = (1.8 + 480 / n**0.35 + 2000 / d**0.35) * np.exp(0.004 * rng.standard_t(2, 24))
    tied = fit_law(n, d, loss, bootstraps=40, form=Form("huber", tied=True))
    np.testing.assert_allclose(tied.resamples.alpha, tied.resamples.beta)
    known = fit_law(n, d, loss, bootstraps=40, form=Form("huber", floor=1.8))
    np.testing.assert_allclose(known.resamples.E, 1.8)
