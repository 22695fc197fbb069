import numpy as np
import pytest
from scipy import stats

from vdit.scaling.laws.estimation.redraw import _in_common, redraw
from vdit.scaling.laws.law import central

WIDE = np.array([[-1e6, 1e6]] * 2)
X_R = np.linspace(-1, 1, 8)


def line(theta_KF, lanes_K):
    """5 + first + second x, a loss that hardly changes from run to run."""
    slopes_FR = np.stack([np.ones_like(X_R), X_R])
    return 5 + theta_KF @ slopes_FR, np.tile(slopes_FR, (len(theta_KF), 1, 1))


def drawn(target_R, **options):
    best, slope = np.polyfit(X_R, target_R - 5, 1)[::-1]
    found = redraw(line, target_R, np.array([best, slope]), delta=1e3, bounds_F2=WIDE, seed=0, **options)
    return found, slope


def test_intervals_of_a_line_are_students():
    """Of a linear model with constant noise they are known: slope +- t x standard error, with R - 2 degrees."""
    noise = np.random.default_rng(1).normal(0, 0.1, 8)
    found_K2, slope = drawn(5 + 0.01 * X_R + noise, count=20_000)
    residual = noise - np.polyval(np.polyfit(X_R, noise, 1), X_R)
    error = np.sqrt((residual**2).sum() / 6 / (X_R**2).sum())
    low, high = central(found_K2[:, 1])
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.9, 6) * error, rel=0.05)
    assert (low + high) / 2 == pytest.approx(slope, abs=0.1 * error)


def test_without_residuals_there_are_no_draws():
    assert redraw(line, X_R[:2], np.zeros(2), count=9, seed=0, delta=1e3, bounds_F2=WIDE).shape == (0, 2)
    assert drawn(5 + X_R, count=0)[0].shape == (0, 2)


@pytest.mark.parametrize("grows", [False, True])
def test_noise_grows_with_the_loss_unless_residuals_say_otherwise(grows):
    """Losses of 1 and 9: what the draws at each spread by is the noise there."""
    rng = np.random.default_rng(0)
    high_R = np.repeat([0.0, 1.0], 40)

    def two_levels(theta_KF, lanes_K):
        slopes_FR = np.stack([1 - high_R, high_R])
        return theta_KF @ slopes_FR, np.tile(slopes_FR, (len(theta_KF), 1, 1))

    level_R = 1 + 8 * high_R
    target_R = level_R + rng.normal(0, 0.02, 80) * (level_R if grows else 1)
    best = np.array([target_R[:40].mean(), target_R[40:].mean()])
    found_K2 = redraw(two_levels, target_R, best, count=2000, seed=0, delta=1e3, bounds_F2=WIDE)
    assert found_K2[:, 1].std() / found_K2[:, 0].std() == pytest.approx(9 if grows else 1, rel=0.15)


def test_what_partners_have_in_common_cancels():
    rng = np.random.default_rng(0)
    shared_C, own_CA = rng.normal(size=(200, 1)), rng.normal(size=(200, 2))
    assert _in_common(own_CA) == 0  # chance explains it
    assert _in_common(shared_C + own_CA) == pytest.approx(0.5, abs=0.15)
    arm_R = np.repeat([0.0, 1.0], 200)

    def arms(theta_KF, lanes_K):
        slopes_FR = np.stack([1 - arm_R, arm_R])
        return 9 + theta_KF @ slopes_FR, np.tile(slopes_FR, (len(theta_KF), 1, 1))

    target_R = 9 + 0.1 * np.concatenate([3 * shared_C[:, 0] + own_CA[:, 0], 3 * shared_C[:, 0] + own_CA[:, 1]])
    best = np.array([target_R[:200].mean(), target_R[200:].mean()]) - 9
    partners = np.arange(400).reshape(2, 200).T
    spreads = []
    for known in (None, partners):
        found_K2 = redraw(arms, target_R, best, count=1000, seed=0, delta=1e3, bounds_F2=WIDE, partners_CA=known)
        spreads.append(np.diff(found_K2, axis=1).std())
    assert spreads[1] / spreads[0] == pytest.approx(np.sqrt(0.1), rel=0.2)
