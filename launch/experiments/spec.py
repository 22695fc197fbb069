"""What an experiment is: data, runs, measures, and the page that comes of them; see configs/experiments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.sweeps.expand import load as load_config
from launch.sweeps.grid import check_grid
from vdit.errors import UserError

KINDS = ("arm", "grid", "heldout", "film")

TEXT_ENCODER = "minilm"
"""Encoder of the captions of data sets, unless a command names another."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One setting that is run with several seeds.

    Attributes:
      name: in tables.
      fields: dotted fields of the config in which it differs from the base; {NAME} in data.path is a data set's folder.
      budget: training FLOPs that its steps spend; or else
      seconds: wall time that its steps are to take, by a short measurement of its speed; or else
      steps: its length.
      seeds: of its runs; empty = the experiment's.
      group: the line of a figure that it is a point of.
      kind: "grid" if the law is fitted to it; "heldout" if it is run last, after the law's prediction for it is
        written; "film" if it is a text-to-video run on the film; else "arm".
      choices: of a held-out arm, sizes of which the law of the grid chooses the best.
      measures: in place of the experiment's.
      samples: videos that are kept for the report; see launch.experiments.runs.samples.
    """

    name: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    budget: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    seeds: Sequence[int] = ()
    group: str = ""
    kind: str = "arm"
    choices: Sequence[Mapping[str, Any]] = ()
    measures: Sequence[str] | None = None
    samples: str = ""


def isoflop_arms(
    cells: Sequence[tuple[float, Mapping[str, Mapping[str, Any]]]], name: str, unit: float = 1.0, **values: Any
) -> list[Arm]:
    """The arms of an iso-FLOP grid, to which the law is fitted.

    Args:
      cells: (budget in units of training FLOPs, the sizes that it is spent on, by name).
      name: of an arm, with {size} and {budget}.
      unit: FLOPs of one unit.
      **values: of all arms.

    Raises:
      UserError: for a grid that can have no minima.
    """
    check_grid([(budget, list(sizes.values())) for budget, sizes in cells])
    return [
        Arm(name.format(size=size, budget=budget), fields, unit * budget, kind="grid", group=f"grid {size}", **values)
        for budget, sizes in cells
        for size, fields in sizes.items()
    ]


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
class Packing:
    """What the report says of how a data set is packed.

    Attributes:
      path: with {NAME} for the folders of data sets; several, separated by commas, are mixed.
      fields: dotted fields of the config in which it is packed otherwise than by the base.
    """

    path: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Report:
    """That an experiment has a folder of its own, whose report.html is written anew after every run.

    Its runs are named for their arms. Else runs lie in a folder that experiments share, named by their ids, and the
    result is a page of docs/experiments.

    What the report says of it besides figures is written here, as the report knows of no experiment.

    Attributes:
      packing: figures of packing, by the name under which they are shown.
      tokens: what D counts.
      measures: measure -> words on it: title, unit, heading of its section, text, better ("lower" or "higher").
      samples: group of samples -> words on it: heading, text; smooth, if its pixels may be blurred when enlarged.
    """

    packing: Mapping[str, Packing] = dataclasses.field(default_factory=dict)
    tokens: str = "patches"
    measures: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    samples: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A claim and how it is put to the test.

    Attributes:
      name, title: file name and heading of its page.
      claim: what is claimed, by whom; question: what is tested here.
      data: name -> module and flags of the command that makes the data set, but --out; {NAME} is another one's folder.
      base: nested config that all runs share.
      arms: settings, in the order in which they are run; held-out ones are last.
      measures: of every run; see launch.experiments.runs.measures.
      figures, compare, laws: panels; (metric, arm, other arm) whose ratio is judged; (metric, floor) fitted against C
        over the arms of one group.
      floors: data sets whose true clips are measured too: velocity errors of their splits.
      notes: further parts of the page, of launch.experiments.pages.notes.
      limits: what it cannot show, in words.
      seeds, clips: of every arm; clips that are generated for each measure and split.
      predicted: metrics whose power law against compute is extrapolated to the held-out runs too, beside the loss.
      cooldown: share of a run's steps in which its rate falls.
      trunks: arms that differ in their budgets only branch off one constant-rate trunk (Hagele et al. 2024).
      report: if it has a folder and a report of its own.
      effect: the smallest relative change that its comparisons should be able to show; 0 = not stated.
      spread: standard deviation of a relative change between seeds, for the number of seeds; 0 takes that of a pilot.
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
    figures: Sequence[Figure] = ()
    compare: Sequence[tuple[str, str, str]] = ()
    laws: Sequence[tuple[str, str]] = ()
    floors: Sequence[str] = ()
    notes: Sequence[str] = ()
    limits: Sequence[str] = ()
    seeds: Sequence[int] = (0, 1, 2)
    clips: int = 48
    predicted: Sequence[str] = ()
    cooldown: float = 0.2
    trunks: bool = False
    report: Report | None = None
    effect: float = 0.0
    spread: float = 0.0
    minutes: float = 45.0

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        for arm in self.arms:
            if sum(map(bool, (arm.budget, arm.seconds, arm.steps))) != 1:
                raise UserError(f"experiment {self.name}: arm {arm.name} needs one of budget, seconds and steps")
            if any({"model.width", "model.depth"} - set(fields) for fields in arm.choices):
                raise UserError(f"experiment {self.name}: choices of arm {arm.name} need model.width and model.depth")
            if arm.kind not in KINDS:
                raise UserError(f"experiment {self.name}: arm {arm.name} is of no kind of {', '.join(KINDS)}")
        if len(set(names)) < len(names):
            raise UserError(f"experiment {self.name}: two arms have one name")
        for _, one, other in self.compare:
            if {one, other} - set(names):
                raise UserError(f"experiment {self.name} compares {one} with {other}, which are not both arms")
        if self.compare and len(set(self.seeds)) < 3:
            raise UserError(f"experiment {self.name} has {len(set(self.seeds))} seeds; an interval over seeds needs 3")

    def seeds_of(self, arm: Arm) -> Sequence[int]:
        return arm.seeds or self.seeds


def shrunk(experiment: Experiment, factor: float) -> Experiment:
    """The same so many times smaller, to see that it runs: budgets, data and clips. Its results mean nothing."""
    arms = [
        dataclasses.replace(
            arm,
            fields={name: value for name, value in arm.fields.items() if name != "optimizer.cooldown"},
            budget=arm.budget / factor,
            seconds=max(arm.seconds / factor, 0.5) if arm.seconds else 0,
            steps=max(2, round(arm.steps / factor)) if arm.steps else 0,
        )
        for arm in experiment.arms
    ]
    data = {name: [_shrunk_flag(part, factor) for part in command] for name, command in experiment.data.items()}
    return dataclasses.replace(experiment, arms=arms, data=data, clips=4, effect=0.0)


def _shrunk_flag(part: str, factor: float) -> str:
    if not part.startswith("--limit="):
        return part
    return f"--limit={max(64, round(int(part.removeprefix('--limit=')) / factor))}"


FOLDER = "configs/experiments"


def load(name: str) -> Experiment:
    """The experiment of a file of configs/experiments, or of any Python file; FILE:ARGUMENT passes get_config() one.

    Raises:
      UserError: naming those there are, if it is none of them.
    """
    path = name if name.partition(":")[0].endswith(".py") else f"{FOLDER}/{name}.py"
    if not Path(path.partition(":")[0]).is_file() or Path(path).name.startswith("_"):
        raise UserError(f"{name!r} is not one of {', '.join(names())}, nor a Python file of an experiment")
    found = load_config(path)
    if not isinstance(found, Experiment):
        raise UserError(f"{path}: get_config() returns {type(found).__name__}, not an Experiment")
    return found


def names() -> list[str]:
    """The experiments of configs/experiments."""
    return sorted(path.stem for path in Path(FOLDER).glob("[!_]*.py") if path.stem != "common")
