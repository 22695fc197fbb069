"""What an experiment is: data, runs, measures, and the page that comes of them; see configs/experiments."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vdit.errors import UserError


@dataclasses.dataclass(frozen=True)
class Arm:
    """One setting that is run with several seeds.

    Attributes:
      name: in tables.
      fields: dotted fields of the config in which it differs from the base; {NAME} in data.path is a data set's folder.
      budget: training FLOPs that its steps spend; or else
      seconds: wall time that its steps are to take, by a short measurement of its speed.
      seeds: of its runs; empty = the experiment's.
      group: the line of a figure that it is a point of.
      held_out: it is run last, after the law's prediction for it is written.
      grid: its runs take part in the law, and are measured only if it has several seeds.
    """

    name: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    budget: float = 0.0
    seconds: float = 0.0
    seeds: Sequence[int] = ()
    group: str = ""
    held_out: bool = False
    grid: bool = False


@dataclasses.dataclass(frozen=True)
class Figure:
    """A panel: a metric against a column, a line for each group of arms (or the values of `by`).

    Attributes:
      x: column of runs.csv, or "arm" for one place for each arm.
      y: metrics, a line for each.
      y_title: of the axis.
      log_x, log_y: logarithmic axes.
      floor: metric of `floors` that is drawn across; empty = none.
    """

    x: str
    y: Sequence[str]
    y_title: str
    log_x: bool = True
    log_y: bool = True
    floor: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A claim and how it is put to the test.

    Attributes:
      name, title: file name and heading of its page.
      claim: what is claimed, by whom; question: what is asked here.
      data: name -> module and flags of the command that makes the data set, but --out.
      base: nested config that all runs share.
      arms: settings.
      measures: of every run that is not only a part of the law; see launch.experiments.measures.
      figures, compare, laws: panels; (metric, arm, other arm) whose ratio is judged; (metric, floor) fitted against C
        over the arms of one group.
      floors: measures of true clips: velocity errors of a data set's splits.
      notes: further parts of the page, of launch.experiments.notes.
      limits: what it cannot show, in words.
      seeds, clips: of every arm; clips that are generated for each measure and split.
      minutes: upper limit that it is planned for, on two cores.
    """

    name: str
    title: str
    claim: str
    question: str
    data: Mapping[str, Sequence[str]]
    base: Mapping[str, Any]
    arms: Sequence[Arm]
    measures: Sequence[str]
    figures: Sequence[Figure]
    compare: Sequence[tuple[str, str, str]] = ()
    laws: Sequence[tuple[str, str]] = ()
    floors: Sequence[str] = ()
    notes: Sequence[str] = ()
    limits: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    clips: int = 48
    minutes: float = 45.0

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for arm in self.arms:
            if bool(arm.budget) == bool(arm.seconds):
                raise UserError(f"experiment {self.name}: arm {arm.name} needs one of budget and seconds")
        if len(set(names)) < len(names):
            raise UserError(f"experiment {self.name}: two arms have one name")
        for _, one, other in self.compare:
            if {one, other} - set(names):
                raise UserError(f"experiment {self.name} compares {one} with {other}, which are not both arms")
        if len(set(self.seeds)) < 3:
            raise UserError(f"experiment {self.name} has {len(set(self.seeds))} seeds; an interval over seeds needs 3")


def shrunk(experiment: Experiment, factor: float) -> Experiment:
    """The same so many times smaller, to see that it runs: budgets, data and clips. Its results mean nothing."""
    arms = [
        dataclasses.replace(
            arm, budget=arm.budget / factor, seconds=max(arm.seconds / factor, 0.5) if arm.seconds else 0
        )
        for arm in experiment.arms
    ]
    data = {name: [_shrunk_flag(part, factor) for part in command] for name, command in experiment.data.items()}
    return dataclasses.replace(experiment, arms=arms, data=data, clips=4)


def _shrunk_flag(part: str, factor: float) -> str:
    if not part.startswith("--limit="):
        return part
    return f"--limit={max(64, round(int(part.removeprefix('--limit=')) / factor))}"


def load(name: str, folder: str = "configs/experiments") -> Experiment:
    """The experiment of a file in configs/experiments.

    Raises:
      UserError: naming those there are, if it is none of them.
    """
    path = Path(folder) / f"{name}.py"
    if not path.is_file() or name.startswith("_"):
        raise UserError(f"--name={name!r} is not one of {', '.join(names(folder))}")
    spec = importlib.util.spec_from_file_location(f"experiment_{name}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = module.get_config()
    if found.name != name:
        raise UserError(f"{path} calls itself {found.name}")
    return found


def names(folder: str = "configs/experiments") -> list[str]:
    """The experiments there are."""
    return sorted(path.stem for path in Path(folder).glob("[!_]*.py") if path.stem != "common")
