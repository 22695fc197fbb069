"""What the law of a grid says of a held-out run, written down before that run is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.runs.trials import Trial, Trials
from launch.experiments.spec import Arm
from launch.sweeps import budget
from launch.sweeps.grid import size_name
from vdit.config import Config
from vdit.errors import UserError
from vdit.io.files import read_json, write_json
from vdit.scaling.laws.approaches.parametric import fit_law
from vdit.scaling.laws.checks.extrapolate import predict_held_out
from vdit.scaling.laws.extensions.quality import fit_quality
from vdit.scaling.runs import Table, table

Rows = Sequence[Mapping[str, Any]]


def grid_of(rows: Rows) -> Table:
    """The runs to which the law is fitted."""
    return table([dict(row) for row in rows if row["kind"] == "grid"], "the grid")


def at_best_size(arm: Arm, rows: Rows, trials: Trials, path: Path) -> Arm:
    """A held-out arm at that of its choices for which the law of the grid predicts the lowest loss.

    Args:
      arm: with choices; {size} in its name becomes the one that is chosen.
      rows: finished runs.
      trials: plans the runs of an arm.
      path: of the prediction: the size of one that is there for this budget stays, whatever a law says by now.
    """
    chosen = {each.name: each for each in (_at(arm, fields) for fields in arm.choices)}
    said = read_json(path) if path.exists() else {}
    if said and math.isclose(said["flops"], arm.budget, rel_tol=1e-6) and said["run"] in chosen:
        return chosen[said["run"]]
    grid = grid_of(rows)
    law = fit_law(grid.params, grid.tokens, grid.loss, flops=grid.flops, bootstraps=0).law

    def loss(each: Arm) -> float:
        config = trials.of(each)[0].config
        return float(law.loss(_params(config, rows), _tokens(config)))

    return min(chosen.values(), key=loss)


def _at(arm: Arm, fields: Mapping[str, Any]) -> Arm:
    """The arm at one of its choices."""
    name = arm.name.format(size=size_name(fields), budget=arm.budget)
    return dataclasses.replace(arm, name=name, fields={**arm.fields, **fields}, choices=())


def write_prediction(
    path: Path, done: Rows, planned: Trial, begun: bool, floors: Mapping[str, float] | None = None
) -> bool:
    """Writes what the laws of the grid say of a held-out run, unless that was written before.

    Args:
      path: of the prediction.
      done: rows of the runs before it.
      planned: the held-out run.
      begun: whether any held-out run has been begun.
      floors: metrics to extrapolate beside the loss, each with its value for true clips (0 if it is unknown).

    Returns:
      whether it has just been written.

    Raises:
      UserError: if a held-out run was begun before there was a prediction, or the prediction is of another run or grid.
    """
    if begun and not path.exists():
        raise UserError(f"held-out runs were begun before {path} was written; restore it, or give another --out")
    grid, config = grid_of(done), planned.config
    params, tokens = _params(config, done), _tokens(config)
    if path.exists():
        said = read_json(path)
        wanted = {"flops": planned.arm.budget, "params": params, "tokens": tokens, "rows": len(grid)}
        for name, value in wanted.items():
            if not math.isclose(said[name], value, rel_tol=1e-6):
                raise UserError(f"{path} was written for {name}={said[name]:g}, but the held-out run has {value:g}")
        return False
    said = predict_held_out(grid, planned.arm.budget, float(params), tokens, planned.arm.name)
    said["metrics"] = {name: _extrapolated(done, name, floor, said["flops"]) for name, floor in (floors or {}).items()}
    write_json(path, said)
    others = "".join(f", {name} {found['predicted']:.4g}" for name, found in said["metrics"].items())
    print(f"{path}: loss {said['predicted_loss']:.4g}{others} predicted, before the run", flush=True)
    return True


def _extrapolated(rows: Rows, metric: str, floor: float, flops: float) -> dict[str, Any]:
    """A metric at a budget by its power law over the best runs of the grid, and the last value carried forward."""
    law = fit_quality([dict(row) for row in rows if row["kind"] == "grid"], metric, floor=floor)
    predicted, interval = law.predict(flops)
    return {"predicted": predicted, "interval": interval, "baseline": float(law.values_B[-1]), "floor": floor}


def keep_earlier(path: Path, flops: float) -> None:
    """Renames a prediction that was made for another budget, when a grid has been given a larger one."""
    said = read_json(path) if path.exists() else {}
    if said and not math.isclose(said["flops"], flops, rel_tol=1e-6):
        path.rename(path.with_name(f"{path.stem}-{said['flops']:.3g}.json"))


def _tokens(config: Config) -> float:
    """D of a run."""
    return budget.sums_per_step(config).patches * config.train.steps


def _params(config: Config, rows: Rows) -> float:
    """N of a run: that of a finished run of its shape, else by count."""
    shape = config.model.width, config.model.depth
    same = [float(row["params"]) for row in rows if (row.get("width"), row.get("depth")) == shape]
    return same[0] if same else float(budget.params(config))
