"""The runs of an experiment: each arm with each seed, its length from a budget of FLOPs, from seconds, or as given."""

from __future__ import annotations

import dataclasses
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.runs.data_sets import DataSets
from launch.experiments.spec import Arm, Experiment
from launch.sweeps import budget, cost
from launch.sweeps.expand import Run, run_of
from launch.sweeps.isoflop import branch_fields, trunk_fields
from launch.sweeps.state import Folder
from vdit.config import Config
from vdit.io.files import read_json, write_json

SPEED_STEPS, SPEED_EVERY = 400, 50
MIN_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Trial:
    """One run of an experiment: an arm with a seed."""

    arm: Arm
    seed: int
    run: Run

    @property
    def id(self) -> str:
        return self.run.id

    @property
    def config(self) -> Config:
        return self.run.config


class Trials:
    """Plans the runs of an experiment.

    Args:
      experiment: which.
      data: its data sets.
      folder: where speeds are kept, and runs.
    """

    def __init__(self, experiment: Experiment, data: DataSets, folder: Folder):
        self._experiment, self._data, self._folder = experiment, data, folder

    def plan(self, measure: bool = True) -> list[Trial]:
        """All runs whose size is known, held-out arms last. Data sets from which lengths follow are made.

        Arms that are given seconds take turns: what else the machine does for a while tilts none of them.

        Args:
          measure: the speed of arms that are given seconds; else those whose speed is not known are named and left out.
        """
        found = []
        for arm in self._experiment.arms:
            if arm.choices:
                continue
            if arm.seconds and not measure and not self._speed(arm).exists():
                print(f"{arm.name}: {arm.seconds:g} s a run; its steps are unknown until its speed is measured")
                continue
            found += self.of(arm)
        return sorted(found, key=lambda trial: (trial.arm.kind == "heldout", trial.seed if trial.arm.seconds else 0))

    def of(self, arm: Arm) -> list[Trial]:
        """The runs of an arm."""
        return [self.one(arm, seed) for seed in self._experiment.seeds_of(arm)]

    def one(self, arm: Arm, seed: int) -> Trial:
        """The run of an arm and a seed."""
        fields = self.fields(arm, seed)
        steps = self._steps(arm, fields)
        trunk = self.trunk(arm, seed, 1).id if self._experiment.trunks and arm.budget else ""
        length = branch_fields(steps, self._experiment.cooldown, trunk)
        run = run_of(self._experiment.base, {**length, **fields, "train.steps": steps})
        name = self._name(arm.name, arm, seed) or run.id
        return Trial(arm, seed, dataclasses.replace(run, id=name, title=f"{arm.name}, seed {seed}"))

    def trunk(self, arm: Arm, seed: int, steps: int) -> Run:
        """The constant-rate run of so many steps that an arm branches off; arms of one size share its workdir."""
        fields, base = self.fields(arm, seed), self._experiment.base
        run = run_of(base, {**fields, **trunk_fields(steps)})
        model = run.config.model
        own = f"{arm.group}-" if arm.kind == "arm" else ""  # the grid's are named for their sizes alone
        name = self._name(f"trunk-{own}w{model.width}d{model.depth}", arm, seed)
        name = name or f"trunk-{run_of(base, {**fields, **trunk_fields(1)}).id}"
        return dataclasses.replace(run, id=name, title=f"trunk of {arm.name}, seed {seed}")

    def fields(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Dotted fields of a run, but those of its length."""
        paths = {name: str(folder) for name, folder in self._data.paths.items()}
        return {**arm.fields, "seed": seed, "data.path": self.data_of(arm).format(**paths)}

    def data_of(self, arm: Arm) -> str:
        """What an arm reads, with {NAME} for data sets; the first one if it does not say."""
        return str(arm.fields.get("data.path", "{" + next(iter(self._data.paths)) + "}"))

    def _name(self, name: str, arm: Arm, seed: int) -> str:
        """Of a run in a folder of the experiment's own; empty in one that is shared."""
        if self._experiment.report is None:
            return ""
        return name if len(self._experiment.seeds_of(arm)) == 1 else f"{name}-seed{seed}"

    def _steps(self, arm: Arm, fields: Mapping[str, Any]) -> int:
        if arm.steps:
            return arm.steps
        self._data.fill_in(self.data_of(arm))
        config = run_of(self._experiment.base, fields).config
        steps = budget.steps_for(arm.budget, config) if arm.budget else self._steps_by_time(arm, config)
        return max(MIN_STEPS, steps)

    def _steps_by_time(self, arm: Arm, config: Config) -> int:
        """Steps that take arm.seconds, by the speed of a short run that is made once."""
        path = self._speed(arm)
        if not path.exists():
            from vdit.train import train
            from vdit.training.record.metrics import read_metrics

            path.parent.mkdir(parents=True, exist_ok=True)
            short = dataclasses.replace(config.train, steps=SPEED_STEPS, log_every=SPEED_EVERY, evaluate_every=-1)
            workdir = path.with_suffix("")
            shutil.rmtree(workdir, ignore_errors=True)
            train(dataclasses.replace(config, train=short), workdir)
            write_json(path, {"seconds_per_step": _median_step(read_metrics(workdir))})
        return round(arm.seconds / read_json(path)["seconds_per_step"])

    def _speed(self, arm: Arm) -> Path:
        """Where the speed of an arm is kept."""
        run = run_of(self._experiment.base, self.fields(arm, 0))
        return self._folder.path / "speed" / f"{arm.name}-{run.id}.json"

    def _trunks(self, trials: Sequence[Trial]) -> list[Run]:
        """The trunks that trials branch off, each as long as its longest branch needs."""
        found: dict[str, Run] = {}
        for trial in trials:
            if trial.run.trunk:
                run = self.trunk(trial.arm, trial.seed, branch_step(trial.config))
                if run.id not in found or run.config.train.steps > found[run.id].config.train.steps:
                    found[run.id] = run
        return list(found.values())

    def text(self, trials: Sequence[Trial], speed: str) -> str:
        """Runs, FLOPs and hours, as of a sweep; runs that are finished take no time.

        Args:
          trials: what is planned.
          speed: runs.csv of earlier runs on such a machine; empty = none.
        """
        unique = tuple({trial.id: trial for trial in trials}.values())
        left = [trial for trial in unique if not self._folder.finished(trial.run)]
        ready = [trial.run for trial in left if self._data.is_made(self.data_of(trial.arm))]
        lines = [f"{len(unique)} runs, {len(unique) - len(left)} finished before; to be trained:"]
        if ready:
            speeds = cost.known_speeds(speed) if speed else ()
            lines.append(cost.text(cost.costs([*self._trunks(left), *ready], speeds), 0.0))
        lines += [
            f"and {trial.run.label}: {trial.config.train.steps} steps on data that is not made yet"
            for trial in left
            if trial.run not in ready
        ]
        lines += [
            f"and {arm.kind}: {arm.budget:.3g} FLOPs, at the size that the law of the grid says is best"
            for arm in self._experiment.arms
            if arm.choices
        ]
        limit = self._experiment.minutes
        return "\n".join([*lines, f"planned for at most {limit:g} minutes on two cores, measures included"])


def branch_step(config: Config) -> int:
    """The step after which a branch leaves its trunk."""
    return config.train.steps - config.optimizer.cooldown


def _median_step(rows: list[dict[str, Any]]) -> float:
    """Seconds of a step: the median over the rows of a log after the first, which compiles."""
    pairs = zip(rows, rows[1:], strict=False)
    return statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs)
