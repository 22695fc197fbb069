import numpy as np
import pytest

from vdit.errors import UserError
from vdit.scaling.laws.estimation.surface import surface
from vdit.scaling.laws.extensions import repetition
from vdit.scaling.laws.extensions.repetition import RepetitionLaw, fit_repetition
from vdit.scaling.laws.law import Law

TRUE = RepetitionLaw(Law(A=3.0, B=55.0, E=0.09, alpha=0.33, beta=0.42), repeats=12.0, excess=5.0)


def runs(noise=0.0):
    """Four sizes at three amounts of unique data, each seen 1 to 60 times."""
    shape = np.meshgrid(np.geomspace(5e3, 5e6, 4), np.geomspace(1e5, 1e8, 3), [0.5, 2, 4, 10, 25, 60], indexing="ij")
    n, unique, epochs = (grid.ravel() for grid in shape)
    d = unique * epochs
    loss = TRUE.loss(n, d, unique) * np.exp(np.random.default_rng(0).normal(0, noise, len(n)))
    return n, d, unique, loss


def test_recovers_what_repeats_are_worth():
    fit = fit_repetition(*runs(0.002))
    assert fit.law.repeats == pytest.approx(12, rel=0.1) and fit.law.excess == pytest.approx(5, rel=0.2)
    assert fit.law.law.exponent() == pytest.approx(0.42 / 0.75, abs=0.02)
    low, high = fit.interval("repeats")
    assert 9 < low < fit.law.repeats < high < 15
    assert fit.warnings == () and fit.repeated == 60


def test_paper_values():
    """Muennighoff et al.: R_D* = 15.39; four epochs are nearly as good as new data, endless ones are U (1 + R*)."""
    law = RepetitionLaw(TRUE.law, repeats=15.387, excess=5.31)
    assert law.effective_tokens(1.0, 5.0) == 1
    assert law.effective_tokens(4.0, 1.0) == pytest.approx(4, rel=0.1)
    assert law.effective_tokens(1e6, 1.0) == pytest.approx(16.387)
    assert law.value(16.387) == pytest.approx(np.exp(-1)) and law.epochs_until(np.exp(-1)) == pytest.approx(16.387)
    best = law.law.optimal_params(1e14)
    tokens = 1e14 / (6 * best)
    assert law.effective_params(best / 3, tokens, tokens) == pytest.approx(best / 3)
    assert law.effective_params(1e6 * best, tokens, tokens) == pytest.approx(6.31 * best, rel=1e-6)


def test_slopes_of_the_model():
    n, d, unique, loss = runs(0.01)
    data = repetition._Data(surface(n, d, loss), n, d, np.minimum(d, unique))
    theta, lanes = np.array([[-1.0, -2.0, -0.5, 0.3, 0.5, 2.0, 1.0]]), np.zeros(1, int)
    _, slopes = data.model(theta, lanes)
    np.testing.assert_allclose(
        data.model(theta, lanes)[0][0] + data.rows.means[2], np.log(data.law(theta[0]).loss(n, d, unique)), rtol=1e-9
    )
    for i, step in enumerate(np.eye(7) * 1e-6):
        up, down = (data.model(theta + sign * step, lanes)[0] for sign in (1, -1))
        np.testing.assert_allclose(slopes[:, i], (up - down) / 2e-6, rtol=1e-4, atol=1e-6)


def test_a_known_law_leaves_two_coefficients():
    fit = fit_repetition(*runs(0.002), base=TRUE.law)
    assert fit.law.law.alpha == pytest.approx(TRUE.law.alpha)
    low, high = fit.interval("repeats")
    assert fit.law.repeats == pytest.approx(12, rel=0.02) and low < fit.law.repeats < high < low + 1.5


def test_what_the_runs_do_not_determine_is_said():
    n, d, unique, loss = runs()
    few = (d <= 4 * unique) & (n < 1e6) & (unique == unique.max())
    fit = fit_repetition(n[few], d[few], unique[few], loss[few])
    assert fit.interval("excess") is None
    assert any("R_N* is not determined" in line for line in fit.warnings)
    assert any("extrapolated" in line for line in fit.warnings)
    once = d <= unique
    with pytest.raises(UserError, match="0 runs repeat"):
        fit_repetition(n[once], d[once], unique[once], loss[once], profiles=False)
    with pytest.raises(UserError, match="7 coefficients"):
        fit_repetition(n[:5], d[:5], unique[:5], loss[:5])
