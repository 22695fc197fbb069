import numpy as np
import pytest

from vdit.errors import UserError
from vdit.scaling.laws.answers import at_budget, budget_for, cheapest, iso_loss, mis_sized, with_inference
from vdit.scaling.laws.approaches.parametric import fit_law
from vdit.scaling.laws.extensions.arms import fit_arms
from vdit.scaling.laws.law import Law

LAW = Law(482.0, 2085.0, 1.82, 0.35, 0.37)


def grid(law=LAW, noise=0.003, seed=0, sizes=6):
    c = np.repeat(np.geomspace(1e18, 1e20, 5), sizes)
    n = LAW.optimal_params(c) * np.tile(np.geomspace(0.25, 4, sizes), 5)
    d = c / (6 * n)
    return n, d, law.loss(n, d) * np.exp(np.random.default_rng(seed).normal(0, noise, len(n)))


@pytest.fixture(scope="module")
def fit():
    return fit_law(*grid(), bootstraps=200)


def test_optimum_at_a_budget(fit):
    found = at_budget(fit, 1e21)
    for name, truth in (("params", LAW.optimal_params(1e21)), ("tokens", 1e21 / (6 * LAW.optimal_params(1e21)))):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high and truth == pytest.approx(found[name], rel=0.3)
    assert found["params"] * found["tokens"] * 6 == pytest.approx(1e21)
    low, high = found["loss_interval"]
    assert low < LAW.optimal_loss(1e21) < high


def test_price_of_a_wrong_size(fit):
    """What is wasted is what the best size would not have needed for the loss of the wrong one."""
    found = mis_sized(fit, 1e20, 4.0)
    wrong = fit.law.loss(found["params"], found["tokens"])
    less = 1e20 * (1 - found["compute_wasted"])
    assert fit.law.optimal_loss(less) == pytest.approx(wrong) and 0.2 < found["compute_wasted"] < 0.8
    assert found["loss_lost_interval"][0] < found["loss_lost"] < found["loss_lost_interval"][1]
    assert mis_sized(fit, 1e20, 1.0)["compute_wasted"] == pytest.approx(0, abs=1e-9)
    assert budget_for(fit.law, fit.law.E, fit) == np.inf


def test_serving_makes_smaller_models_best(fit):
    """Against a search over sizes and lengths (Sardana et al. 2024: smaller and trained longer)."""
    served, loss = 1e12, float(LAW.optimal_loss(1e21))
    params, tokens = cheapest(LAW, fit, 1e21, served)
    assert params < 0.8 * LAW.optimal_params(1e21) and LAW.loss(params, tokens) == pytest.approx(loss)
    cost = 6 * params * tokens + 2 * params * served
    for n in params * np.array([0.9, 1.1]):
        assert 6 * n * iso_loss(LAW, loss, n) + 2 * n * served > cost
    found = with_inference(fit, 1e21, served)
    assert found["saved_interval"][0] < found["saved"] < found["saved_interval"][1] and found["saved"] > 0.02
    assert with_inference(fit, 1e21, 1.0)["params"] == pytest.approx(fit.law.optimal_params(1e21), rel=0.01)


def test_lines_of_equal_loss(fit):
    params = np.geomspace(1e6, 1e12, 50)
    tokens = iso_loss(fit.law, 2.5, params)
    there = np.isfinite(tokens)
    np.testing.assert_allclose(fit.law.loss(params[there], tokens[there]), 2.5)
    assert 0 < there.sum() < 50 and there[-1] and not there[0]  # small models never get there


def arms(gain=0.7, noise=0.003):
    """The second arm reaches every loss with `gain` of the compute: its A and B fall by that share of C."""
    shrink_n, shrink_d = gain ** (0.5 * 0.35), gain ** (0.5 * 0.37)
    other = Law(LAW.A * shrink_n, LAW.B * shrink_d, LAW.E, LAW.alpha, LAW.beta)
    first, second = grid(noise=noise, seed=1), grid(other, noise, 2)
    columns = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    return columns, ["adam"] * len(first[0]) + ["muon"] * len(second[0])


@pytest.mark.parametrize("shared", [True, False])
def test_an_arm_saves_compute(shared):
    columns, names = arms()
    found = fit_arms(*columns, names, reference="adam", shared=shared, bootstraps=200)
    assert found.names == ("adam", "muon") and found.paired == 60 and found.warnings == ()
    row = found.saved("muon", 1e20)
    low, high = row["interval"]
    assert low < 0.3 < high and row["saved"] == pytest.approx(0.3, abs=0.05) and high - low < 0.15
    assert row["gain"] == pytest.approx(1 / (1 - row["saved"]))
    if shared:
        assert found.fits[0].law.alpha == found.fits[1].law.alpha and found.fits[0].law.E == found.fits[1].law.E


def test_arms_that_differ_in_exponents_are_told_apart():
    first, second = grid(seed=1), grid(Law(200.0, 2085.0, 1.9, 0.30, 0.37), seed=2)
    columns = [np.concatenate(pair) for pair in zip(first, second, strict=True)]
    found = fit_arms(*columns, ["a"] * 30 + ["b"] * 30, bootstraps=0)
    assert "differ" in found.warnings[0] and found.saved("b", 1e20)["interval"] is None


def test_mistakes_with_arms_are_named():
    columns, names = arms()
    with pytest.raises(UserError, match="belong to one arm, adam"):
        fit_arms(*columns, ["adam"] * 60)
    with pytest.raises(UserError, match="no run belongs to arm sgd; there are"):
        fit_arms(*columns, names, reference="sgd")
    with pytest.raises(UserError, match="arm x has 3 runs"):
        fit_arms(*columns, ["x"] * 3 + ["y"] * 57)
