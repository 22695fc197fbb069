"""How any measured quality goes with compute: a power law through the runs that a budget is best spent on.

y = floor + k C^-g, as image quality is described by Liang et al. 2024 (arXiv 2410.08184: FID = 2.26e6 C^-0.234). The
run that stands for a budget is chosen by its loss, never by the quality itself, which would favour lucky measurements.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.law import LEVEL, Interval, central
from vdit.scaling.laws.seeds import LEVEL as TREND_LEVEL
from vdit.scaling.laws.seeds import Mean, mean
from vdit.scaling.runs import Run


@dataclasses.dataclass(frozen=True)
class Quality:
    """A metric against compute.

    Attributes:
      metric, floor: which, and the value that is best possible.
      flops_B, values_B: budgets and the metric of the runs that stand for them, seeds averaged.
      low_B, high_B: their interval over clips where runs have columns METRIC_low and METRIC_high, else nan.
      factor, exponent: k and g; a metric that rises with compute has g < 0.
      interval: of g, from resamples.
      over_seeds: g of each seed's own runs, if at least two seeds have the metric at every budget.
      resamples: (k, g) of every bootstrap resample.
      loss_correlation: Spearman's correlation of metric and loss over all runs: whether the loss ranks models as this
        quality does.
    """

    metric: str
    floor: float
    flops_B: np.ndarray
    values_B: np.ndarray
    low_B: np.ndarray
    high_B: np.ndarray
    factor: float
    exponent: float
    interval: Interval | None
    over_seeds: Mean | None
    resamples: np.ndarray
    loss_correlation: float

    @property
    def judged_by(self) -> Interval | None:
        """The 95% interval of g that decides on a trend: Student's t over seeds, or with one seed that of resamples.

        Resamples of a few seeds are too narrow to decide anything: of three, every ninth draws one seed only.
        """
        if self.over_seeds is not None:
            return self.over_seeds.low, self.over_seeds.high
        return central(self.resamples[:, 1], TREND_LEVEL)

    @property
    def trend(self) -> str:
        """What that interval says: "falls", "rises" or "flat" (no trend is shown)."""
        if self.judged_by is None or self.judged_by[0] <= 0 <= self.judged_by[1]:
            return "flat"
        return "falls" if self.judged_by[0] > 0 else "rises"

    def __call__(self, flops: Any) -> Any:
        """The law's value at C."""
        return self.floor + self.factor * np.asarray(flops, np.float64) ** -self.exponent

    def predict(self, flops: float) -> tuple[float, Interval | None]:
        """The law's value at C and its interval."""
        k, g = self.resamples.T
        return float(self(flops)), central(self.floor + k * flops**-g)

    def describe(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            "metric": self.metric,
            "floor": self.floor,
            "factor": self.factor,
            "exponent": self.exponent,
            "interval": self.interval,
            "trend": self.trend,
            "trend_interval": self.judged_by,
            "loss_correlation": self.loss_correlation,
            "budgets": [
                {"flops": float(c), "value": float(y)} for c, y in zip(self.flops_B, self.values_B, strict=True)
            ],
        }


def fit_quality(
    runs: Sequence[Run], metric: str, *, floor: float = 0.0, bootstraps: int = 1000, seed: int = 0
) -> Quality:
    """Fits the law by least squares in logs.

    A resample draws the seeds of every budget with replacement and, where runs have an interval over clips, moves each
    value by as much as that interval says it may be off. With one seed and no such interval there is nothing to
    resample, and the interval comes from drawing budgets.

    Args:
      runs: with "flops", "loss", the metric and perhaps "budget", "params", METRIC_low and METRIC_high (95%).
      metric: column.
      floor: best possible value, such as that of true clips.
      bootstraps: resamples.
      seed: of the resampling.

    Raises:
      UserError: if no run has the metric, a value is not above the floor, or there are fewer than two budgets.
    """
    having = [run for run in runs if isinstance(run.get(metric), (int, float)) and np.isfinite(run[metric])]
    if not having:
        raise UserError(f"no run has a number in column {metric}; measure it first, or name another --metrics")
    worst = min(having, key=lambda run: run[metric])
    if worst[metric] <= floor:
        raise UserError(f"{metric}={worst[metric]:g} of run {worst.get('run')} is not above the floor {floor:g}")
    groups = _representatives(having)
    if len(groups) < 2:
        raise UserError(f"{metric} is known at one budget only; a law needs at least 2")
    c, values = _points(groups, metric)
    spreads = [np.array([_spread(run, metric) for run in group]) for group in groups]
    y = np.array([v.mean() for v in values])
    slope, level = np.polyfit(np.log(c), np.log(y - floor), 1)
    resamples = _resample(c, values, spreads, floor, bootstraps, seed)
    known = np.array([_bounds(group, metric) for group in groups]).T
    return Quality(
        metric, floor, c, y, known[0], known[1], float(np.exp(level)), float(-slope),
        central(resamples[:, 1]), _over_seeds(having, metric, floor), resamples, _spearman(having, metric),
    )  # fmt: skip


def _representatives(runs: Sequence[Run]) -> list[list[Run]]:
    """For each budget, by rising budget, the runs (seeds) of the size whose mean loss is lowest."""
    by_budget: dict[float, dict[Any, list[Run]]] = {}
    for run in runs:
        size = (run.get("width"), run.get("depth"), run.get("params"))
        by_budget.setdefault(_budget(run), {}).setdefault(size, []).append(run)
    best = (min(sizes.values(), key=lambda group: np.mean([r["loss"] for r in group])) for sizes in by_budget.values())
    return sorted(best, key=lambda group: group[0]["flops"])


def _points(groups: list[list[Run]], metric: str) -> tuple[np.ndarray, list[np.ndarray]]:
    """The mean compute of each group (that of logs), and the metric of its runs."""
    c = np.array([np.exp(np.mean([np.log(run["flops"]) for run in group])) for group in groups])
    return c, [np.array([run[metric] for run in group], np.float64) for group in groups]


def _budget(run: Run) -> float:
    return float(run.get("budget") or run["flops"])


def _over_seeds(runs: Sequence[Run], metric: str, floor: float) -> Mean | None:
    """Mean and interval of g over the seeds whose runs are at all budgets; None with fewer than two of them."""
    budgets = {_budget(run) for run in runs}
    found = []
    for seed in sorted({run["seed"] for run in runs if run.get("seed") is not None}):
        own = [run for run in runs if run.get("seed") == seed]
        if {_budget(run) for run in own} == budgets:
            c, values = _points(_representatives(own), metric)
            y = np.array([v.mean() for v in values])
            found.append(-float(np.polyfit(np.log(c), np.log(y - floor), 1)[0]))
    return mean(found) if len(found) > 1 else None


def _spread(run: Run, metric: str) -> float:
    """Standard deviation that a run's 95% interval over clips stands for; 0 without one."""
    low, high = run.get(f"{metric}_low"), run.get(f"{metric}_high")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return max(high - low, 0) / (2 * 1.96)
    return 0.0


def _bounds(group: Sequence[Run], metric: str) -> tuple[float, float]:
    """Mean interval over the seeds of a budget."""
    sides = [[run.get(f"{metric}_{side}", np.nan) for run in group] for side in ("low", "high")]
    return float(np.mean(sides[0])), float(np.mean(sides[1]))


def _resample(
    c: np.ndarray, values: list[np.ndarray], spreads: list[np.ndarray], floor: float, count: int, seed: int
) -> np.ndarray:
    """(k, g) of each resample, (count, 2)."""
    rng = np.random.default_rng(seed)
    noisy = any(spread.any() for spread in spreads) or max(map(len, values)) > 1
    found = []
    for _ in range(count):
        places = np.arange(len(c)) if noisy else np.sort(rng.integers(len(c), size=len(c)))
        if len(np.unique(places)) < 2:
            continue
        drawn = []
        for i in places:
            pick = rng.integers(len(values[i]), size=len(values[i]))
            drawn.append((values[i][pick] + spreads[i][pick] * rng.normal(size=len(pick))).mean())
        y = np.array(drawn) - floor
        if (y > 0).all():
            slope, level = np.polyfit(np.log(c[places]), np.log(y), 1)
            found.append((np.exp(level), -slope))
    return np.array(found).reshape(-1, 2)


def _spearman(runs: Sequence[Run], metric: str) -> float:
    from scipy.stats import spearmanr

    if len(runs) < 3:
        return float("nan")
    return float(spearmanr([run["loss"] for run in runs], [run[metric] for run in runs]).statistic)


def words(found: dict[str, Any], span: Any) -> str:
    """A line for the terminal; `span` formats an interval."""
    verdict = "no trend shown" if found["trend"] == "flat" else f"{found['trend']} with compute"
    return (
        f"{found['metric']} = {found['floor']:g} + {found['factor']:.3g} C^-g:  g = {found['exponent']:.3f}"
        f"{span(found['interval'])} ({LEVEL:.0%}), {verdict}{span(found['trend_interval'])} ({TREND_LEVEL:.0%}); "
        f"rank correlation with the loss {found['loss_correlation']:.2f}"
    )
