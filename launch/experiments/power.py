"""How many seeds a comparison needs: by Student's t, for an effect of a size that matters.

Seeds of two arms are compared pair by pair on the logarithm of a metric (`stats.compare`), so that an effect of 10% is
log 1.1 and the spread is the standard deviation over seeds of the log ratio of two arms.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats as distributions

from launch.experiments.spec import Experiment
from launch.experiments.stats import of_arm
from vdit.errors import UserError
from vdit.scaling.laws.seeds import LEVEL

POWER = 0.8
MAX_SEEDS = 1000
Rows = Sequence[Mapping[str, Any]]


def power_of(effect: float, spread: float, seeds: int, *, paired: bool = True, level: float = LEVEL) -> float:
    """Probability that a true effect is shown: that the interval of that level over seeds excludes 0.

    Args:
      effect: true mean difference.
      spread: standard deviation of the difference of a pair of seeds; unpaired, of one arm over its seeds.
      seeds: of each arm.
      paired: whether seeds of the two arms are compared pair by pair.
      level: of the interval.
    """
    freedom = seeds - 1 if paired else 2 * (seeds - 1)
    if freedom < 1:
        return 0.0
    if spread == 0:
        return float(effect != 0)
    shift = abs(effect) / (spread * math.sqrt((1 if paired else 2) / seeds))
    end = distributions.t.ppf((1 + level) / 2, freedom)
    return float(distributions.nct.sf(end, freedom, shift) + distributions.nct.cdf(-end, freedom, shift))


def seeds_needed(
    effect: float, spread: float, *, paired: bool = True, level: float = LEVEL, power: float = POWER
) -> int:
    """Fewest seeds of each arm with which an effect is shown with that probability.

    Raises:
      UserError: if more than `MAX_SEEDS` would be needed.
    """
    if effect == 0:
        raise UserError("an effect of 0 cannot be shown by any number of seeds")
    found = (n for n in range(2, MAX_SEEDS + 1) if power_of(effect, spread, n, paired=paired, level=level) >= power)
    seeds = next(found, None)
    if seeds is None:
        raise UserError(f"an effect of {effect:g} at a spread of {spread:g} needs more than {MAX_SEEDS} seeds")
    return seeds


def detectable(spread: float, seeds: int, *, paired: bool = True, level: float = LEVEL, power: float = POWER) -> float:
    """The smallest effect that so many seeds show with that probability; infinite with one seed."""
    if seeds < 2 or spread == 0:
        return math.inf if spread else 0.0
    low, high = 0.0, spread
    while power_of(high, spread, seeds, paired=paired, level=level) < power:
        high *= 2
    for _ in range(40):
        middle = (low + high) / 2
        enough = power_of(middle, spread, seeds, paired=paired, level=level) >= power
        low, high = (low, middle) if enough else (middle, high)
    return high


def pilot_spread(rows: Rows, metric: str, pairs: Sequence[tuple[str, str]]) -> float | None:
    """Standard deviation over seeds of the log ratio of two arms, pooled over pairs of arms; None if it is unknown."""
    squares, freedom = 0.0, 0
    for pair in pairs:
        one, other = (of_arm(rows, name, metric) for name in pair)
        seeds = sorted(one.keys() & other.keys())
        if len(seeds) < 2 or min(*one.values(), *other.values()) <= 0:
            continue
        logs = np.log([one[seed] / other[seed] for seed in seeds])
        squares += float(((logs - logs.mean()) ** 2).sum())
        freedom += len(seeds) - 1
    return math.sqrt(squares / freedom) if freedom else None


@dataclasses.dataclass(frozen=True)
class Need:
    """What the comparisons of a metric need.

    Attributes:
      metric: which.
      spread: standard deviation over seeds of a log ratio; source: where it is from.
      effect: relative change that should be shown.
      seeds: that it needs; planned: that there are.
      minutes: of training all arms with the seeds needed; None if it is unknown.
    """

    metric: str
    spread: float
    source: str
    effect: float
    seeds: int
    planned: int
    minutes: float | None

    def __str__(self) -> str:
        time = "" if self.minutes is None else f", {self.minutes:.0f} minutes of training"
        shown = math.expm1(detectable(self.spread, self.planned))
        known = f"power {POWER:.0%}, spread between seeds {math.expm1(self.spread):.1%}, {self.source}"
        return (
            f"{self.metric}: to see {self.effect:.0%} needs {self.seeds} seeds{time}; {self.planned} seeds show "
            f"{shown:.1%} or more ({known})"
        )


def needs(experiment: Experiment, rows: Rows = (), source: str = "") -> list[Need]:
    """What each metric that an experiment compares needs, where a spread is known.

    Args:
      experiment: with the effect that it should show; none is stated = 10%.
      rows: of earlier runs of its arms, from which the spread is taken if the experiment states none.
      source: of the rows, in words.
    """
    effect = experiment.effect or 0.1
    minutes = _minutes(experiment, rows)
    found = []
    for metric in dict.fromkeys(metric for metric, _, _ in experiment.compare):
        pairs = [(one, other) for name, one, other in experiment.compare if name == metric]
        stated = math.log1p(experiment.spread) if experiment.spread else None
        spread = stated if stated is not None else pilot_spread(rows, metric, pairs)
        if spread is None:
            continue
        seeds = seeds_needed(math.log1p(effect), spread)
        time = None if minutes is None else minutes[0] + seeds * minutes[1]
        origin = "as stated" if stated is not None else source
        found.append(Need(metric, spread, origin, effect, seeds, len(set(experiment.seeds)), time))
    return found


def check(found: Sequence[Need], experiment: Experiment) -> None:
    """Raises UserError if an experiment states an effect that its seeds would not show."""
    short = [need for need in found if need.seeds > need.planned]
    if experiment.effect and short:
        need = max(short, key=lambda each: each.seeds)
        raise UserError(
            f"experiment {experiment.name}: to see {need.effect:.0%} in {need.metric} needs {need.seeds} seeds, not "
            f"{need.planned}; raise seeds, or the effect that it should show"
        )


def pilot_of(path: Path) -> Rows:
    """Rows of an experiment's earlier csv file, none if there is no such file."""
    from vdit.scaling.runs import read_csv

    return read_csv(path) if path.is_file() else ()


def _minutes(experiment: Experiment, rows: Rows) -> tuple[float, float] | None:
    """Training time of arms with seeds of their own, and of one seed of the others; None if an arm was never run."""
    fixed = per_seed = 0.0
    for arm in experiment.arms:
        times = list(of_arm(rows, arm.name, "train_seconds").values())
        if not times:
            return None
        mean = sum(times) / len(times) / 60
        fixed, per_seed = (fixed + len(arm.seeds) * mean, per_seed) if arm.seeds else (fixed, per_seed + mean)
    return fixed, per_seed
