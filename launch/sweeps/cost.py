"""What a sweep will cost, counted from the data's plan before anything starts: runs, FLOPs, hours, money."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from launch.sweeps import budget
from launch.sweeps.expand import Run
from vdit.errors import UserError
from vdit.io.formatting import align
from vdit.scaling.laws.approaches.parabolas import group_budgets
from vdit.scaling.laws.approaches.parametric import fit_law
from vdit.scaling.runs import read_csv, table


@dataclasses.dataclass(frozen=True)
class RunCost:
    """What a run will cost.

    Attributes:
      run: which.
      kind: "trunk", "branch" or "run".
      params, tokens, epochs: N, patches seen at its end, and passes over its data.
      flops: training FLOPs at its end; spent: of those, the ones that its own steps take.
      hours: estimated time of its own steps, None without a known speed.
    """

    run: Run
    kind: str
    params: int
    tokens: float
    epochs: float
    flops: float
    spent: float
    hours: float | None


def costs(runs: Sequence[Run], speeds: Sequence[tuple[float, float]] = ()) -> list[RunCost]:
    """What runs of diffusion models will cost.

    Args:
      runs: whose data sets are built here.
      speeds: (N, FLOP/s) that were measured, such as `known_speeds` gives.
    """
    found = []
    for run in runs:
        train, sums = run.config.train, budget.sums_per_step(run.config)
        per_step = budget.flops_per_step(run.config)
        first = train.steps - run.config.optimizer.cooldown if train.branch_from else 0
        kind = "branch" if train.branch_from else "trunk" if train.keep_steps else "run"
        params, tokens = budget.params(run.config), sums.patches * train.steps
        spent = per_step * (train.steps - first)
        speed = _speed(params, speeds)
        hours = spent / speed / 3600 if speed else None
        epochs = tokens / budget.unique_patches(run.config)
        found.append(RunCost(run, kind, params, tokens, epochs, per_step * train.steps, spent, hours))
    return found


def known_speeds(path: str | Path) -> list[tuple[float, float]]:
    """(N, FLOP/s) of the runs of a csv with the columns params and tflops.

    Raises:
      UserError: if it has none.
    """
    runs = [run for run in read_csv(path) if isinstance(run.get("tflops"), (int, float)) and run["tflops"] > 0]
    if not runs:
        raise UserError(f"{path} has no run with a number in column tflops; give a runs.csv of this machine")
    return sorted((float(run["params"]), float(run["tflops"]) * 1e12) for run in runs)


def _speed(params: int, speeds: Sequence[tuple[float, float]]) -> float | None:
    """The measured speed of the nearest size."""
    return min(speeds, key=lambda known: abs(math.log(known[0] / params)))[1] if speeds else None


def check_minima(planned: Sequence[RunCost], law_csv: str | Path) -> list[str]:
    """Budgets whose best size, by the law of earlier runs, is not inside the sizes planned for it; one line each.

    Args:
      planned: an iso-FLOP grid.
      law_csv: finished runs to which the law is fitted.
    """
    earlier = table([run for run in read_csv(law_csv) if run.get("kind", "grid") == "grid"], str(law_csv))
    fit = fit_law(earlier.params, earlier.tokens, earlier.loss, flops=earlier.flops, bootstraps=0)
    ends = [each for each in planned if each.kind != "trunk"]
    lines = []
    for flops, rows in group_budgets(np.array([each.flops for each in ends])):
        sizes = sorted({ends[i].params for i in rows})
        best = float(fit.law.optimal_params(flops, fit.cost))
        if not sizes[0] < best < sizes[-1]:
            lines.append(
                f"at {flops:.2g} FLOPs the law of {law_csv} puts the best size at {best:.3g} parameters, outside "
                f"{sizes[0]:.3g} to {sizes[-1]:.3g}: add sizes"
            )
    return lines


def text(planned: Sequence[RunCost], price_per_hour: float, at_once: int = 1) -> str:
    """The plan as a table with its totals."""
    rows: list[tuple[str, ...]] = [("run", "kind", "N", "D", "epochs", "FLOPs", "own FLOPs", "hours", "cost", "what")]
    rows += [_row(each, price_per_hour) for each in planned]
    lines = [align(rows)]
    total = sum(each.spent for each in planned)
    known = [each.hours for each in planned if each.hours is not None]
    separate = sum(each.flops for each in planned if each.kind != "trunk")
    lines.append(
        f"{len(planned)} runs, {total:.3g} FLOPs" + (f" ({separate:.3g} as separate runs)" * (separate > total))
    )
    if len(known) == len(planned):
        hours = sum(known)
        cost = f", cost {hours * price_per_hour:.3g}" if price_per_hour else ""
        lines[-1] += f", about {hours:.2f} h of running{f', {hours / at_once:.2f} h of waiting' * (at_once > 1)}{cost}"
    else:
        lines[-1] += "; hours are not known: give --speed=RUNS.csv of earlier runs on such machines"
    return "\n".join(lines)


def _row(each: RunCost, price: float) -> tuple[str, ...]:
    hours = "" if each.hours is None else f"{each.hours:.3f}"
    cost = f"{each.hours * price:.3g}" if price and each.hours is not None else ""
    numbers = [f"{each.params:,}", f"{each.tokens:.3g}", f"{each.epochs:.2f}", f"{each.flops:.3g}", f"{each.spent:.3g}"]
    return (each.run.id, each.kind, *numbers, hours, cost, _short(each.run))


def _short(run: Run) -> str:
    """Its label without what the other columns say."""
    if run.title:
        return run.title
    said = ("train.", "optimizer.cooldown")
    words: list[Any] = [flag.removeprefix("--config.") for flag in run.overrides]
    return " ".join(word for word in words if not word.startswith(said))
