import numpy as np
import pytest

from vdit.scaling.laws.approaches.envelope import fit_envelope, group_sizes
from vdit.scaling.laws.law import Law

LAW = Law(A=3.0, B=55.0, E=0.09, alpha=0.36, beta=0.44)  # a = 0.55


def curves(sizes, budgets, noise=0.0):
    n, c = (grid.ravel() for grid in np.meshgrid(sizes, budgets, indexing="ij"))
    d = c / (6 * n)
    return c, n, d, LAW.loss(n, d) * np.exp(np.random.default_rng(0).normal(0, noise, len(n)))


def test_recovers_the_exponents_of_a_known_law():
    found = fit_envelope(*curves(np.geomspace(1e3, 1e7, 40), np.geomspace(1e11, 1e15, 9), 0.002), bootstraps=100)
    assert found.params.exponent == pytest.approx(0.55, abs=0.02)
    assert found.tokens.exponent == pytest.approx(0.45, abs=0.02)
    low, high = found.params.interval
    assert low < 0.55 < high and high - low < 0.1
    np.testing.assert_allclose(found.params_P, LAW.optimal_params(found.flops_P), rtol=0.5)
    assert found.edges < 0.1


def test_compute_at_which_the_largest_size_is_best_takes_no_part():
    sizes = np.geomspace(1e3, 3e4, 8)
    found = fit_envelope(*curves(sizes, np.geomspace(1e11, 1e15, 9)), bootstraps=0)
    assert found.edges > 0.4 and found.params_P.max() < sizes[-1] * 0.99
    nothing = fit_envelope(*curves(sizes[:2], np.geomspace(1e11, 1e12, 3)), bootstraps=0)
    assert nothing.params is None and not len(nothing.flops_P)


def test_budgets_with_sizes_of_their_own_have_no_envelope():
    """Interpolated between runs that happen to be of like size, the exponent came out as -.05 (env_bug)."""
    c = np.repeat(np.geomspace(1e18, 3e20, 6), 7)
    n = LAW.optimal_params(c) * np.tile(np.geomspace(0.25, 4, 7), 6)
    d = c / (6 * n)
    found = fit_envelope(c, n, d, LAW.loss(n, d), bootstraps=20)
    assert found.params is None and "several amounts of compute" in found.without


def test_seeds_and_digitised_sizes_are_one_size():
    assert [list(rows) for rows in group_sizes(np.array([100.0, 5.0, 101.0, 5.0]))] == [[1, 3], [0, 2]]
