"""How many seeds a comparison needs: against textbook values, simulation, and the plan of an experiment."""

import numpy as np
import pytest
from small_experiment import small

from launch.experiments import power
from launch.experiments.spec import Arm
from vdit.errors import UserError
from vdit.scaling.laws.seeds import mean


@pytest.mark.parametrize(
    ("effect", "spread", "paired", "seeds"),
    [  # of Cohen's tables of the t test, two-sided, level 0.95, power 0.8: d = 0.5, 0.8, 1.0
        (0.5, 1.0, False, 64),
        (0.8, 1.0, False, 26),
        (1.0, 1.0, False, 17),
        (0.5, 1.0, True, 34),
        (0.8, 1.0, True, 15),
        (1.0, 1.0, True, 10),
    ],
)
def test_seeds_of_the_tables(effect, spread, paired, seeds):
    assert power.seeds_needed(effect, spread, paired=paired) == seeds
    assert power.power_of(effect, spread, seeds, paired=paired) >= 0.8
    assert power.power_of(effect, spread, seeds - 1, paired=paired) < 0.8


def test_power_is_how_often_the_interval_excludes_nothing():
    rng = np.random.default_rng(0)
    intervals = [mean(rng.normal(0.1, 0.08, 5).tolist()) for _ in range(2000)]
    shown = np.mean([found.low > 0 or found.high < 0 for found in intervals])
    assert shown == pytest.approx(power.power_of(0.1, 0.08, 5), abs=0.03)


def test_what_is_seen_with_the_seeds_there_are():
    effect = power.detectable(0.05, 6)
    assert power.power_of(effect, 0.05, 6) == pytest.approx(0.8, abs=1e-6)
    assert power.seeds_needed(effect * 1.001, 0.05) == 6
    assert power.detectable(0.05, 1) == float("inf") and power.detectable(0.0, 3) == 0
    assert power.seeds_needed(0.01, 0.0) == 2
    with pytest.raises(UserError, match="needs more than 1000 seeds"):
        power.seeds_needed(0.001, 1.0)
    with pytest.raises(UserError, match="effect of 0"):
        power.seeds_needed(0.0, 1.0)


def pilot(spread: float = 0.05):
    """Three seeds of two arms, whose log ratios spread by so much."""
    return [
        {
            "arm": arm,
            "seed": seed,
            "loss": np.exp(0.1 * seed + spread * (seed - 1) * (arm == "half")),
            "train_seconds": 60.0,
        }
        for arm in ("half", "all")
        for seed in (0, 1, 2)
    ]


def test_the_plan_says_what_its_comparisons_need():
    (need,) = power.needs(small(effect=0.1), pilot(), "of a pilot")
    assert need.spread == pytest.approx(0.05)  # what both arms of a seed share is no spread
    assert need.seeds == power.seeds_needed(np.log(1.1), 0.05) and need.planned == 3
    assert need.minutes == pytest.approx(2 * need.seeds)  # two arms of a minute
    assert f"to see 10% needs {need.seeds} seeds, {need.minutes:.0f} minutes of training" in str(need)
    with pytest.raises(UserError, match=f"small: to see 10% in loss needs {need.seeds} seeds, not 3"):
        power.check([need], small(effect=0.1))
    power.check([need], small())  # no effect is stated
    (stated,) = power.needs(small(effect=0.3, spread=0.02))
    assert stated.seeds <= 3 and stated.minutes is None and "as stated" in str(stated)
    power.check([stated], small(effect=0.3, spread=0.02))
    assert power.needs(small()) == []  # nothing is known of its spread


def test_arms_with_seeds_of_their_own_are_not_repeated():
    arms = [*small().arms, Arm("grid", {}, 1e9, seeds=(0,), kind="grid")]
    rows = [*pilot(), {"arm": "grid", "seed": 0, "train_seconds": 600.0}]
    (need,) = power.needs(small(arms=arms, effect=0.1), rows, "of a pilot")
    assert need.minutes == pytest.approx(10 + 2 * need.seeds)
