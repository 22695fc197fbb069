"""Arms are compared over their seeds."""

import numpy as np
import pytest

from launch.experiments import stats
from vdit.scaling.laws.seeds import mean


def test_arms_are_compared_seed_by_seed():
    rows = [{"arm": arm, "seed": s, "x": v * (1 + s)} for arm, v in (("a", 1.1), ("b", 1.0)) for s in (0, 1, 2)]
    found = stats.compare(rows, "x", "a", "b")
    assert found.verdict == "higher" and found.change.value == pytest.approx(0.1) and found.change.count == 3
    rows = [{"arm": arm, "seed": s, "x": v} for arm, vs in (("a", (0, 0.5, 1)), ("b", (0.4, 0.5, 0.6))) for s, v in
            enumerate(vs)]  # fmt: skip
    found = stats.compare(rows, "x", "a", "b")
    assert not found.ratio and found.verdict == "no difference shown" and found.change.low < 0 < found.change.high
    assert stats.compare(rows, "y", "a", "b") is None
    assert "shows nothing" in stats.compare(rows[::3], "x", "a", "b").words()
    one = mean([1.0])
    assert np.isinf(one.high)


@pytest.mark.parametrize(
    ("ratios", "decision", "effect"),
    [
        ((1.01, 1.0, 0.99), "less than 2.5% either way", "-0.0% (-2.5% to +2.5%), 3 seeds"),
        ((1.3, 1.0, 0.8), "undecided", None),
        ((1.3, 1.31, 1.29), "higher", None),
        ((1.3,), "one seed", "+30.0%"),
    ],
)
def test_a_null_result_decides_only_if_it_excludes_a_size_that_matters(ratios, decision, effect):
    rows = [{"arm": "a", "seed": s, "x": ratio} for s, ratio in enumerate(ratios)]
    rows += [{"arm": "b", "seed": s, "x": 1.0} for s in range(len(ratios))]
    found = stats.compare(rows, "x", "a", "b")
    assert found.decision == decision and (effect is None or found.effect() == effect)
