"""Everything a report says about a study, computed once from its files, whatever part of them exists."""

from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.envelope import Envelope, fit_envelope
from vdit.scaling.laws.approaches.parabolas import IsoFlop, fit_isoflop
from vdit.scaling.laws.approaches.parametric import Fit, fit_law
from vdit.scaling.laws.checks.diagnose import diagnose
from vdit.scaling.laws.checks.extrapolate import carried_forward, judge
from vdit.scaling.laws.checks.influence import influence, influence_warnings
from vdit.scaling.laws.checks.sensitivity import sensitivity
from vdit.scaling.laws.extensions import forms
from vdit.scaling.loading import load
from vdit.scaling.reading import read_runs
from vdit.scaling.runs import Run, Study, Table, table


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The held-out run: what was said before it and what came.

    Attributes:
      run: its name.
      flops, params, tokens: C, N, D.
      loss, interval: predicted.
      baseline: lowest loss of the largest fitted budget, carried forward.
      written: when the prediction was written, "" if it was made only now, by this report.
      measured: final loss, None until the run is finished.
    """

    run: str
    flops: float
    params: float
    tokens: float
    loss: float
    interval: tuple[float, float] | None
    baseline: float
    written: str
    measured: float | None

    @property
    def error(self) -> float | None:
        """(predicted - measured) / measured."""
        return None if self.measured is None else self.loss / self.measured - 1

    @property
    def baseline_error(self) -> float | None:
        return None if self.measured is None else self.baseline / self.measured - 1

    @property
    def covered(self) -> bool | None:
        """Whether the interval holds the measurement."""
        if self.measured is None or self.interval is None:
            return None
        return self.interval[0] <= self.measured <= self.interval[1]


@dataclasses.dataclass(frozen=True)
class Analysis:
    """A study and what follows from it; None where there is not enough to compute it from.

    Attributes:
      study: the files.
      grid: runs of the iso-FLOP grid, None before the first.
      fit: the law through them.
      unfitted: why there is no fit yet.
      isoflop: the parabolas.
      prediction: the held-out run.
      envelope: approach 1.
      influence: the runs that move the exponent most.
      sensitivity: the exponent by other choices of runs and of the fit.
      forms: other laws, by their error on held-out budgets.
      warnings: what the data do not determine.
      notes: what columns of a table were taken for what.
    """

    study: Study
    grid: Table | None
    fit: Fit | None
    unfitted: str
    isoflop: IsoFlop | None
    prediction: Prediction | None
    envelope: Envelope | None = None
    influence: tuple[dict[str, Any], ...] = ()
    sensitivity: tuple[dict[str, Any], ...] = ()
    forms: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        """The csv of the runs."""
        return str(self.study.about.get("table", self.study.path / "runs.csv"))

    @property
    def planned(self) -> int | None:
        """Runs that the study means to make, None if study.json does not say."""
        about = self.study.about
        if isinstance(about.get("planned"), int):
            return about["planned"]
        count = len(about.get("budgets") or []) * len(about.get("sizes") or [])
        return count + (1 if about.get("held_out") else 0) if count else None

    @property
    def counted(self) -> list[Run]:
        """Runs of the law, grid and held out: those that the study compares with each other."""
        return self.study.of_kind("grid", "heldout")

    @property
    def measured(self) -> list[Run]:
        """Runs whose other measures are compared: those of the law, and arms of experiments."""
        return self.study.of_kind("grid", "heldout", "arm")

    def best_at(self, kind: str, name: str) -> list[tuple[float, float]]:
        """(C, lowest `name` of the runs of a kind) for each budget."""
        found: dict[float, float] = {}
        for run in self.study.of_kind(kind):
            value = run.get(name)
            if isinstance(value, (int, float)) and math.isfinite(value):
                budget = float(run.get("budget") or run["flops"])
                found[budget] = min(found.get(budget, math.inf), value)
        return sorted(found.items())


def analyse(study: Study, bootstraps: int = 1000) -> Analysis:
    """Fits what can be fitted to the runs so far."""
    runs = study.of_kind("grid")
    grid = table(runs) if runs else None
    left = "no run of the grid has finished"
    if not runs and any(run.get("kind") == "grid" for run in study.runs):
        left = "no finished run of the grid has a validation loss with its FLOPs, parameters and tokens"
    if grid is None:
        return Analysis(study, None, None, left, None, _prediction(study, None, None))
    columns = grid.flops, grid.params, grid.tokens, grid.loss
    try:
        fit, unfitted = fit_law(*columns[1:], flops=grid.flops, bootstraps=bootstraps), ""
    except UserError as error:
        fit, unfitted = None, str(error)
    few = min(bootstraps, 500)
    isoflop = fit_isoflop(*columns, budgets=grid.budgets, bootstraps=few, fit=fit)
    lowest = fit_envelope(*columns, bootstraps=few, fit=fit)
    found = Analysis(study, grid, fit, unfitted, isoflop, _prediction(study, grid, fit), lowest)
    if fit is None:
        return found
    influential = influence(grid, fit)
    return dataclasses.replace(
        found,
        influence=tuple(influential),
        sensitivity=tuple(sensitivity(grid, fit)),
        forms=tuple(forms.compare(grid)),
        warnings=(*diagnose(grid, fit, isoflop, lowest), *influence_warnings(influential, fit)),
    )


def of_csv(path: str | Path, bootstraps: int = 1000, drop_highest: int = 0) -> Analysis:
    """The same from a table of runs alone, as `vdit.scaling.fit` reads it.

    Args:
      path: the table.
      bootstraps: draws for intervals.
      drop_highest: leave out so many runs of highest loss.

    Raises:
      UserError: if it cannot be read, or no run would be left.
    """
    loaded = load(path, drop_highest)
    named = {str(run["run"]): run for run in read_runs(path).runs if run.get("run")}
    runs = [
        {**named.get(name, {}), **run, "kind": kind, "run": name, "flops": c, "params": n, "tokens": d, "loss": loss}
        for kind, part, known in (("grid", loaded.fitted, loaded.runs), ("heldout", loaded.held_out, ()))
        if part is not None
        for run, name, c, n, d, loss in zip(
            known or [{}] * len(part),
            part.names,
            *(values.tolist() for values in (part.flops, part.params, part.tokens, part.loss)),
            strict=True,
        )
    ]
    taken = {run["run"] for run in runs}  # the other arms of an experiment are measured, but not fitted
    runs += [run for name, run in named.items() if run.get("kind") == "arm" and name not in taken]
    found = analyse(Study(Path(path).parent, {"table": str(path)}, tuple(runs), {}, {}, {}, (), {}), bootstraps)
    if found.grid is not None and loaded.fitted.derived_tokens:  # D is filled in above
        found = dataclasses.replace(found, grid=dataclasses.replace(found.grid, derived_tokens=True))
    return dataclasses.replace(found, notes=loaded.notes, warnings=(*loaded.warnings, *found.warnings))


def _prediction(study: Study, grid: Table | None, fit: Fit | None) -> Prediction | None:
    """From prediction.json; or, for a held-out run that nobody predicted, from the fit, marked as made afterwards."""
    held_out = study.of_kind("heldout")
    said = study.prediction
    needed = ("flops", "params", "tokens", "predicted_loss", "baseline_loss")
    if all(isinstance(said.get(name), (int, float)) for name in needed):
        run = next((r for r in held_out if r["run"] == said.get("run")), held_out[0] if held_out else None)
        interval: Any = said.get("interval")
        whole = isinstance(interval, (list, tuple)) and len(interval) == 2
        return Prediction(
            run=str(said.get("run", "held out")),
            flops=float(said["flops"]),
            params=float(said["params"]),
            tokens=float(said["tokens"]),
            loss=float(said["predicted_loss"]),
            interval=(float(interval[0]), float(interval[1])) if whole else None,
            baseline=float(said["baseline_loss"]),
            written=_written_before(said.get("written"), run),
            measured=float(run["loss"]) if run else None,
        )
    if not held_out or fit is None or grid is None:
        return None
    found = judge(fit, grid, table(held_out[:1]))[0]
    run = held_out[0]
    return Prediction(
        run=found["run"],
        flops=found["flops"],
        params=float(run["params"]),
        tokens=float(run["tokens"]),
        loss=found["predicted"],
        interval=found["interval"],
        baseline=carried_forward(grid),
        written="",
        measured=found["measured"],
    )


def _written_before(written: Any, run: Run | None) -> str:
    """When a prediction was written, "" if that was after its run (which may say when it "started") had started."""
    try:
        late = run is not None and datetime.fromisoformat(str(written)) > datetime.fromisoformat(str(run["started"]))
    except (KeyError, ValueError, TypeError):  # a time is missing, or only one of them has a time zone
        late = False
    return "" if late else str(written or "at a time that was not noted")


def envelope(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points where y reaches a new low as x rises."""
    order = np.lexsort((y, x))
    x, y = np.asarray(x)[order], np.asarray(y)[order]
    lowest = np.minimum.accumulate(y)
    new = np.concatenate([[True], lowest[1:] < lowest[:-1]])[: len(x)]
    return x[new], y[new]
