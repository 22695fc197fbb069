"""What a study runs: sizes, budgets, configs; and the row that a finished run leaves."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.util
import time
from typing import Any

from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.scaling import runs


@dataclasses.dataclass(frozen=True)
class Size:
    """One model size."""

    width: int
    depth: int
    head_width: int

    @property
    def name(self) -> str:
        """Width and depth, as in the names of runs."""
        return f"w{self.width}d{self.depth}"


@dataclasses.dataclass(frozen=True)
class StudyPlan:
    """A study.

    Attributes:
      sizes: from small to large.
      grid: (budget of training FLOPs, sizes it is spent on), from small to large.
      held_out: a larger budget, predicted before it is run.
      cooldown: share of a run's steps in which the rate falls.
      clips: clips a split that are generated for the physics error.
      base: config of the physics runs, to which size, data and length are added.
      film: config of the text-to-video run on the film.
    """

    sizes: tuple[Size, ...]
    grid: tuple[tuple[float, tuple[Size, ...]], ...]
    held_out: float
    cooldown: float
    clips: int
    base: Config
    film: Config

    @property
    def budgets(self) -> list[float]:
        """The budgets of the grid."""
        return [budget for budget, _ in self.grid]


def load(path: str, full: bool) -> StudyPlan:
    """The plan of a config file; `full` adds its larger row to the grid and holds out a larger budget.

    Raises:
      UserError: for a file that cannot be read or a plan that makes no sense.
    """
    spec = importlib.util.spec_from_file_location("study_config", path)
    try:
        if spec is None or spec.loader is None:
            raise FileNotFoundError(path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        raise UserError(f"--config={path} is not a Python file") from error
    values = module.get_config().to_dict()
    sizes = tuple(Size(*size) for size in values["sizes"])
    grid, held_out = list(values["grid"]), values["held_out"]
    if full:
        row, held_out = values["full"]
        grid.append(row)
    if len(grid) < 3 or min(len(numbers) for _, numbers in grid) < 4:
        raise UserError(f"{path}: an iso-FLOP grid needs at least 3 budgets of 4 sizes each to have minima")
    return StudyPlan(
        sizes=sizes,
        grid=tuple((budget, tuple(sizes[i] for i in numbers)) for budget, numbers in grid),
        held_out=held_out,
        cooldown=values["cooldown"],
        clips=values["clips"],
        base=build(values["base"], Config),
        film=build(values["film"], Config),
    )


def result_row(name: str, kind: str, budget: float, run: Any, result: dict[str, Any], started: float) -> dict[str, Any]:
    """The account of a finished run, as written to its result.json.

    Args:
      name, kind, budget: which run it is.
      run: the opened run.
      result: what `training.loop.train` returned.
      started: Unix time at which the trunk's extension or the run began.
    """
    return {
        **runs.result_row(run.config, result),
        "run": name,
        "kind": kind,
        "budget": budget,
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat(timespec="seconds"),
        "seconds": time.time() - started,
    }
