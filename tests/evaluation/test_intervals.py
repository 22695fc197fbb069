"""Bootstrap intervals."""

import numpy as np
import pytest

from vdit.evaluation.intervals import bootstrap_mean


def test_the_interval_of_a_mean():
    values = np.random.default_rng(0).normal(2.0, 3.0, 400)
    mean, (low, high) = bootstrap_mean(values)
    assert mean == pytest.approx(values.mean())
    error = 1.96 * values.std() / 20
    assert (low - mean, high - mean) == pytest.approx((-error, error), rel=0.15)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = sum(
        low < 1.0 < high for low, high in (bootstrap_mean(rng.exponential(size=60)).interval for _ in range(200))
    )
    assert 0.88 < hits / 200 < 0.985


def test_weights():
    sums, weights = np.array([1.0, 6.0, 3.0]), np.array([1, 3, 2])
    assert bootstrap_mean(sums, weights).mean == pytest.approx(10 / 6)
    repeated = bootstrap_mean(sums, weights)
    assert repeated == bootstrap_mean(sums, weights)
    assert repeated.interval[0] >= 1.0
    assert repeated.interval[1] <= 2.0


def test_one_example_has_no_spread_and_none_is_refused():
    assert bootstrap_mean(np.array([3.0])).interval == (3.0, 3.0)
    with pytest.raises(ValueError, match="no examples"):
        bootstrap_mean(np.array([]))
