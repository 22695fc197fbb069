"""Puts a claim to the test: `python -m launch.experiment --name=physics [--dry_run]`.

Builds the data, trains every arm with every seed, measures, and writes docs/experiments/NAME.md with its figures and
its runs as NAME.csv. Everything is kept under --out and nothing is done twice: a run that several experiments ask for
is trained once, and one that was stopped goes on from its checkpoint. Experiments are configs/experiments/*.py.
"""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from launch.experiments import spec
from launch.experiments.spec import Arm, Experiment
from launch.sweeps import grid_plan, scaling_grid
from launch.sweeps.expand import Run, Sweep, merged
from vdit.command import no_arguments, run_main
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.io.files import read_json, write_json
from vdit.training.identity import run_id

COOLDOWN = 0.2
TEXT_ENCODER = "minilm"
SPEED_STEPS, SPEED_EVERY = 400, 50


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of an experiment."""

    arm: Arm
    seed: int
    config: Config

    @property
    def id(self) -> str:
        return run_id(self.config)


class Runner:
    """Brings an experiment to its page.

    Args:
      experiment: which.
      out: folder of data and runs, shared by experiments.
      text_encoder: of the data sets.
    """

    def __init__(self, experiment: Experiment, out: Path, text_encoder: str):
        self.experiment, self.out, self._encoder = experiment, out, text_encoder
        self.data = {name: out / "data" / name for name in experiment.data}

    def build_data(self) -> None:
        """Makes the data sets that are not there, in the order in which they are named."""
        for name, command in self.experiment.data.items():
            where = self.data[name]
            told = where.with_suffix(".txt")  # what made it: names are shared by experiments
            wanted = " ".join([*command, self._encoder])
            if (where / "vdit.json").exists():
                if not told.exists() or told.read_text() != wanted:
                    raise UserError(f"{where} was not made by {wanted}; remove it, or give another --out")
                continue
            where.parent.mkdir(parents=True, exist_ok=True)
            told.write_text(wanted)
            arguments = self.data_command(name)
            print("$ python", *arguments, flush=True)
            if status := _run([sys.executable, *arguments]):
                raise UserError(f"the data set {name} could not be made: {' '.join(arguments)} ended with {status}")

    def data_command(self, name: str) -> list[str]:
        """What makes a data set, after `python`."""
        module, *options = self.experiment.data[name]
        more = [f"--text_encoder={self._encoder}"] if module == "data_pipelines.build" else []
        arguments = [option.format(**{n: str(path) for n, path in self.data.items()}) for option in options]
        return ["-m", module, f"--out={self.data[name]}", *arguments, *more]

    def plan(self, measure: bool = True) -> list[Planned]:
        """All runs, held-out arms last. The data must be there, as lengths follow from its plan.

        Arms that are given seconds take turns: what else the machine does for a while tilts none of them.

        Args:
          measure: the speed of arms that are given seconds; else those whose speed is not known are named and left out.
        """
        found = []
        for arm in self.experiment.arms:
            if arm.seconds and not measure and not self._speed(arm).exists():
                print(f"{arm.name}: {arm.seconds:g} s a run; its steps are unknown until its speed is measured")
                continue
            found += [Planned(arm, seed, self._config(arm, seed)) for seed in arm.seeds or self.experiment.seeds]
        return sorted(found, key=lambda run: (run.arm.held_out, run.seed if run.arm.seconds else 0))

    def _unplanned(self, arm: Arm, seed: int) -> Config:
        """The config of a run before its steps are known."""
        fields = {**arm.fields, "seed": seed}
        path = str(fields.get("data.path", "{" + next(iter(self.data)) + "}"))
        fields["data.path"] = path.format(**{name: str(folder) for name, folder in self.data.items()})
        return build(merged(dict(self.experiment.base), fields), Config)

    def _config(self, arm: Arm, seed: int) -> Config:
        config = self._unplanned(arm, seed)
        steps = scaling_grid.steps_for(arm.budget, config) if arm.budget else self._steps_by_time(arm, config)
        steps = max(2, steps)
        cooldown = max(1, round(COOLDOWN * steps))
        optimizer = dataclasses.replace(config.optimizer, cooldown=cooldown)
        return dataclasses.replace(config, optimizer=optimizer, train=dataclasses.replace(config.train, steps=steps))

    def _steps_by_time(self, arm: Arm, config: Config) -> int:
        """Steps that take arm.seconds, by the speed of a short run that is made once."""
        path = self._speed(arm)
        if not path.exists():
            from vdit.training.loop import train
            from vdit.training.metrics import read_metrics

            path.parent.mkdir(parents=True, exist_ok=True)
            short = dataclasses.replace(config.train, steps=SPEED_STEPS, log_every=SPEED_EVERY, evaluate_every=-1)
            workdir = path.with_suffix("")
            shutil.rmtree(workdir, ignore_errors=True)
            train(dataclasses.replace(config, train=short), workdir)
            write_json(path, {"seconds_per_step": _usual_step(read_metrics(workdir))})
        return round(arm.seconds / read_json(path)["seconds_per_step"])

    def _speed(self, arm: Arm) -> Path:
        """Where the speed of an arm is kept."""
        return self.out / "speed" / f"{arm.name}-{run_id(self._unplanned(arm, 0))}.json"

    def workdir(self, planned: Planned) -> Path:
        return self.out / "runs" / planned.id

    def train(self, planned: Planned) -> dict[str, Any]:
        """The result of a run, which is trained if it is not finished."""
        from vdit.scaling.runs import result_row
        from vdit.training.loop import train

        workdir = self.workdir(planned)
        path = workdir / "result.json"
        if not path.exists():
            started = time.time()
            result = train(planned.config, workdir)
            account = {"started": time.strftime("%FT%TZ", time.gmtime(started)), "seconds": time.time() - started}
            write_json(path, {**result_row(planned.config, result), **account})
        return read_json(path)

    def predict(self, runs: list[Planned], done: list[dict[str, Any]], docs: Path, stop: bool) -> None:
        """Writes the prediction of the first held-out run, or sees that the one that is there was made for it.

        Raises:
          UserError: if it has just been written and `stop` says that it is to be committed before going on.
        """
        from launch.experiments.notes import write_prediction

        held_out = [planned for planned in runs if planned.arm.held_out]
        begun = any((self.workdir(planned) / "config.json").exists() for planned in held_out)
        path = docs / f"{self.experiment.name}-prediction.json"
        if write_prediction(path, done, held_out[0], begun) and stop:
            raise UserError(f"{path} is written; commit it, then give the same command again")

    def rows(self, runs: list[Planned], docs: Path, stop: bool = False) -> Iterator[dict[str, Any]]:
        """Trains and measures one run after another; gives the row of each, and predicts before the first held out.

        Args:
          runs: held-out ones last.
          docs: folder of the prediction.
          stop: when the prediction has been written, so that it can be committed before the held-out runs.
        """
        from launch.experiments.measures import Finished, measured
        from vdit.scaling.runs import flatten

        done: list[dict[str, Any]] = []
        for number, planned in enumerate(runs):
            arm = planned.arm
            if arm.held_out and not (number and runs[number - 1].arm.held_out):
                self.predict(runs, done, docs, stop)
            print(f"run {number + 1} of {len(runs)}: {arm.name}, seed {planned.seed}, {planned.id}", flush=True)
            result = self.train(planned)
            kept = {name: value for name, value in result.items() if name not in ("validation", "loss_interval")}
            kind = "heldout" if arm.held_out else "grid" if arm.grid else "arm"
            row = {**flatten(kept), "run": planned.id, "kind": kind, "arm": arm.name, "group": arm.group}
            row |= {"budget": arm.budget} if arm.budget else {}
            if not arm.grid or len(arm.seeds or self.experiment.seeds) > 1:
                finished = Finished(self.workdir(planned), self.data, self.experiment.clips)
                row |= measured(finished, tuple(self.experiment.measures))
            done.append(row)
            yield row


def _run(command: list[str]) -> int:
    """Status of a command, to which a SIGTERM is passed on, so that it does not go on alone."""
    with subprocess.Popen(command) as child:
        before = signal.signal(signal.SIGTERM, lambda number, frame: child.terminate())
        try:
            return child.wait()
        finally:
            signal.signal(signal.SIGTERM, before)


def _usual_step(rows: list[dict[str, Any]]) -> float:
    """Seconds of a step: the median over the rows of a log after the first, which compiles."""
    pairs = zip(rows, rows[1:], strict=False)
    return statistics.median((b["seconds"] - a["seconds"]) / (b["step"] - a["step"]) for a, b in pairs)


def text_of_plan(runner: Runner, runs: list[Planned], speed: str) -> str:
    """Runs, FLOPs and hours, as of a sweep; runs that are finished take no time."""
    found = [Run(each.id, (f"arm={each.arm.name}", f"seed={each.seed}"), each.config) for each in runs]
    unique = tuple({run.id: run for run in found}.values())
    left = tuple(run for run in unique if not (runner.out / "runs" / run.id / "result.json").exists())
    speeds = grid_plan.known_speeds(speed) if speed else ()
    planned = grid_plan.plan(Sweep(runner.experiment.name, "", left, {}), speeds)
    head = f"{len(unique)} runs, {len(unique) - len(left)} finished before; to be trained:"
    limit = f"planned for at most {runner.experiment.minutes:g} minutes on two cores, measures included"
    return f"{head}\n{grid_plan.text(planned, 0.0)}\n{limit}"


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.name is None:
        raise UserError(f"--name is needed: one of {', '.join(spec.names())}")
    experiment, out, docs = spec.load(values.name), Path(values.out), Path(values.docs)
    if values.shrink > 1:
        experiment = spec.shrunk(experiment, values.shrink)
        out, docs = out / f"shrunk-{values.shrink:g}", out / f"shrunk-{values.shrink:g}" / "docs"
    from launch.experiments.page import write_page
    from vdit.exit_status import PREEMPTED
    from vdit.parallel.preemption import Preempted
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.scaling.runs import write_csv

    initialise(cpu_devices_for(build(dict(experiment.base), Config)))
    runner = Runner(experiment, out, values.text_encoder)
    runner.build_data()
    try:
        runs = runner.plan(measure=not values.dry_run)
        print(text_of_plan(runner, runs, values.speed), flush=True)
        if values.dry_run:
            return
        docs.mkdir(parents=True, exist_ok=True)
        rows = list(runner.rows(runs, docs, stop=values.shrink == 1))
    except Preempted as stopped:
        print(stopped, flush=True)
        sys.exit(PREEMPTED)
    write_csv(docs / f"{experiment.name}.csv", rows)
    floors = runner_floors(runner)
    own = ["-m", "launch.experiment", f"--name={values.name}"]
    own += [f"--shrink={values.shrink:g}"] if values.shrink > 1 else []
    own += [f"--text_encoder={values.text_encoder}"] if values.text_encoder != TEXT_ENCODER else []
    commands = [shlex.join(["python", *each]) for each in (own, *map(runner.data_command, experiment.data))]
    print(write_page(experiment, rows, floors, runner.data, docs, commands))


def runner_floors(runner: Runner) -> dict[str, Any]:
    """What the measures say of true clips, made once."""
    from launch.experiments.measures import floors

    experiment = runner.experiment
    path = runner.out / f"floors-{'-'.join(experiment.floors)}-{experiment.clips}.json"
    if not path.exists():
        write_json(path, floors(runner.data, tuple(experiment.floors), experiment.clips))
    return read_json(path)


if __name__ == "__main__":
    flags.DEFINE_string("name", None, "The experiment: a file of configs/experiments, without .py.")
    flags.DEFINE_string("out", "experiments", "Folder of data and runs, shared by all experiments.")
    flags.DEFINE_string("docs", "docs/experiments", "Folder of the pages.")
    flags.DEFINE_float("shrink", 1.0, "Make everything so many times smaller, to see that it runs.", lower_bound=1)
    flags.DEFINE_bool("dry_run", False, "Build the data, print the plan, and train nothing.")
    flags.DEFINE_string("speed", "", "runs.csv of earlier runs on such a machine, for the hours of the plan.")
    flags.DEFINE_string("text_encoder", TEXT_ENCODER, "Encoder of the captions, as of data_pipelines.build.")
    run_main(main)
