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
from vdit.scaling.laws.estimation.surface import nonnegative
from vdit.scaling.laws.law import LEVEL, Interval, central
from vdit.scaling.laws.seeds import LEVEL as TREND_LEVEL
from vdit.scaling.laws.seeds import Mean, mean
from vdit.scaling.reading import Run

MIN_FLOOR = 4  # budgets that a floor can be fitted to
_SLOPES = np.concatenate([np.linspace(-1.0, -0.01, 60), np.linspace(0.01, 2.0, 200)])  # where g is sought with a floor
_FINER = 21  # values of its finer grids
_PART = 250  # draws at a time, so that their arrays stay small


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
      floors: of every resample, where the floor was fitted.
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
    floors: np.ndarray | None = None

    @property
    def floor_interval(self) -> Interval | None:
        """Interval of a fitted floor."""
        return None if self.floors is None else central(self.floors)

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
        floor = self.floor if self.floors is None else self.floors
        return float(self(flops)), central(floor + k * flops**-g)

    def describe(self) -> dict[str, Any]:
        """As --json prints it."""
        return {
            "metric": self.metric,
            "floor": self.floor,
            "floor_interval": self.floor_interval,
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
    runs: Sequence[Run], metric: str, *, floor: float | None = 0.0, bootstraps: int = 1000, seed: int = 0
) -> Quality:
    """Fits the law by least squares in logs.

    A resample moves the value of every budget by noise: that between its seeds; with one seed, that around the line;
    and, where runs have an interval over clips that says more, by that. The noise is drawn as Student's t has it, for
    it is estimated from as few values as there are. With two budgets, one seed and no such interval there is none.

    Args:
      runs: with "flops", "loss", the metric and perhaps "budget", "params", METRIC_low and METRIC_high (95%).
      metric: column.
      floor: best possible value, such as that of true clips; None fits it, which takes four budgets.
      bootstraps: resamples.
      seed: of the resampling.

    Raises:
      UserError: if no run has the metric, a value is not above the floor, or there are fewer than two budgets.
    """
    having = [run for run in runs if isinstance(run.get(metric), (int, float)) and np.isfinite(run[metric])]
    if not having:
        raise UserError(f"no run has a number in column {metric}; measure it first, or name another --metrics")
    worst = min(having, key=lambda run: run[metric])
    if worst[metric] <= (floor or 0.0):
        raise UserError(f"{metric}={worst[metric]:g} of run {worst.get('run')} is not above the floor {floor or 0.0:g}")
    groups = _representatives(having)
    if len(groups) < (MIN_FLOOR if floor is None else 2):
        raise UserError(
            f"{metric} is known at {len(groups)} budgets; a law whose floor is fitted needs at least {MIN_FLOOR}"
            if floor is None
            else f"{metric} is known at one budget only; a law needs at least 2"
        )
    c, values = _points(groups, metric)
    spreads = [np.array([_spread(run, metric) for run in group]) for group in groups]
    y = np.array([v.mean() for v in values])
    law = _floored(c, y[None])[0] if floor is None else _line(c, y[None], floor)[0]
    scale_B, freedom = _scale(y, values, spreads, law, c, 2 + (floor is None))
    drawn = np.zeros((0, 3))
    if bootstraps and freedom > 0:
        noise = _student(scale_B, freedom, bootstraps, seed)
        moved = law[0] + law[1] * c ** -law[2] * np.exp(noise)
        drawn = _floored(c, moved) if floor is None else _line(c, moved, floor)
    known = np.array([_bounds(group, metric) for group in groups]).T
    return Quality(
        metric, float(law[0]), c, y, known[0], known[1], float(law[1]), float(law[2]), central(drawn[:, 2]),
        _over_seeds(having, metric, float(law[0])), drawn[:, 1:], _spearman(having, metric),
        drawn[:, 0] if floor is None else None,
    )  # fmt: skip


def _line(c: np.ndarray, y_KB: np.ndarray, floor: float) -> np.ndarray:
    """(floor, k, g) of least squares in logs, (K, 3)."""
    slope_K, level_K = np.polyfit(np.log(c), np.log(y_KB - floor).T, 1)
    return np.column_stack([np.full(len(y_KB), floor), np.exp(level_K), -slope_K])


def _floored(c: np.ndarray, y_KB: np.ndarray) -> np.ndarray:
    """(floor, k, g) of least squares of the relative error, floor and k not negative, by projection on g: (K, 3).

    A grid of g for all, then twice a finer one around the best of each: an interval may be narrower than a step.
    """
    middle = np.exp(np.log(c).mean())
    x_B, found = c / middle, []
    for part_KB in np.array_split(y_KB, -(-len(y_KB) // _PART)):
        step = float(np.diff(_SLOPES).max())
        best_K2, slope_K = _projected(x_B, part_KB, np.tile(_SLOPES, (len(part_KB), 1)))
        for _ in range(2):
            best_K2, slope_K = _projected(x_B, part_KB, slope_K[:, None] + np.linspace(-step, step, _FINER))
            step *= 2 / (_FINER - 1)
        found.append(np.column_stack([best_K2[:, 0], best_K2[:, 1] * middle**slope_K, slope_K]))
    return np.concatenate(found)


def _projected(x_B: np.ndarray, y_KB: np.ndarray, slopes_KG: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Floor and k (K, 2) at the best of G values of g for each of K draws, and that g (K,)."""
    powers_KGB = x_B ** -slopes_KG[..., None]
    terms_KG2B = np.stack([np.ones_like(powers_KGB), powers_KGB], 2) / y_KB[:, None, None, :]
    found_N2, left_N = nonnegative(terms_KG2B.reshape(-1, 2, len(x_B)), np.ones(len(x_B)))
    best = np.arange(len(y_KB)), left_N.reshape(slopes_KG.shape).argmin(1)
    return found_N2.reshape(*slopes_KG.shape, 2)[best], slopes_KG[best]


def _scale(
    y: np.ndarray, values: list[np.ndarray], spreads: list[np.ndarray], law: np.ndarray, c: np.ndarray, free: int
) -> tuple[np.ndarray, float]:
    """Standard deviations of the logs of the budgets' values over the floor, and what they are known by."""
    above = law[1] * c ** -law[2]
    seeds = np.array([len(v) for v in values])
    clips_B = np.array([np.sqrt((s**2).sum()) / len(s) for s in spreads]) / above
    freedom = float((seeds - 1).sum())
    if freedom >= 3:
        within = sum(float(((v - v.mean()) ** 2).sum()) / a**2 for v, a in zip(values, above, strict=True))
        scale_B = np.sqrt(within / freedom / seeds)
    else:
        freedom = float(len(c) - free)
        off = np.log(np.maximum(y - law[0], 1e-12 * y) / above)
        scale_B = np.full(len(c), np.sqrt((off**2).sum() / freedom) if freedom > 0 else 0.0)
    if (clips_B**2).mean() > (scale_B**2).mean():
        return clips_B, np.inf
    return scale_B, freedom


def _student(scale_B: np.ndarray, freedom: float, count: int, seed: int) -> np.ndarray:
    """Noise (K, B) whose scale is itself uncertain."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, len(scale_B))) * scale_B
    return noise if np.isinf(freedom) else noise * np.sqrt(freedom / rng.chisquare(freedom, (count, 1)))


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


def _spearman(runs: Sequence[Run], metric: str) -> float:
    from scipy.stats import spearmanr

    if len(runs) < 3:
        return float("nan")
    return float(spearmanr([run["loss"] for run in runs], [run[metric] for run in runs]).statistic)


def words(found: dict[str, Any], span: Any) -> str:
    """A line for the terminal; `span` formats an interval."""
    verdict = "no trend shown" if found["trend"] == "flat" else f"{found['trend']} with compute"
    return (
        f"{found['metric']} = {found['floor']:.4g}{span(found['floor_interval'])} + {found['factor']:.3g} C^-g:"
        f"  g = {found['exponent']:.3f}"
        f"{span(found['interval'])} ({LEVEL:.0%}), {verdict}{span(found['trend_interval'])} ({TREND_LEVEL:.0%}); "
        f"rank correlation with the loss {found['loss_correlation']:.2f}"
    )
