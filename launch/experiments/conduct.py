"""From the description of an experiment to its result: a page of docs/experiments, or a report in its own folder."""

from __future__ import annotations

import shlex
from pathlib import Path

from launch.experiments import power
from launch.experiments.report import describe, write_inputs
from launch.experiments.runs.runner import Runner
from launch.experiments.spec import TEXT_ENCODER, Experiment
from vdit.config import Config
from vdit.config_dict import build


def conduct(
    experiment: Experiment,
    out: Path,
    docs: Path,
    *,
    text_encoder: str = TEXT_ENCODER,
    speed: str = "",
    command: str = "",
    dry_run: bool = False,
    stop: bool = False,
) -> None:
    """Trains, measures and writes the result.

    Args:
      experiment: which.
      out: folder of data and runs.
      docs: folder of the page, the csv file and the prediction of an experiment without a report of its own.
      text_encoder: of the data sets.
      speed: runs.csv of earlier runs on such a machine, for the hours of the plan.
      command: that makes it, for the page.
      dry_run: print the plan, and train nothing.
      stop: when a prediction has been written, so that it can be committed before the held-out runs.
    """
    from vdit.parallel.runtime import cpu_devices_for, initialise

    initialise(cpu_devices_for(build(dict(experiment.base), Config)))
    runner = Runner(experiment, out, text_encoder, docs)
    if experiment.report:
        runner.on_change = lambda: _write_report(runner)
    with runner.folder.launcher():
        trials = runner.trials.plan(measure=not dry_run)
        print(runner.trials.text(trials, speed), flush=True)
        pilot = docs / f"{experiment.name}.csv"
        needs = power.needs(experiment, power.pilot_of(pilot), f"of {pilot}")
        if experiment.compare:
            unknown = f"how many seeds it needs is unknown without {pilot} of a pilot, or a stated spread"
            print("\n".join(map(str, needs)) or unknown, flush=True)
        if dry_run:
            return
        power.check(needs, experiment)
        if experiment.report:
            describe(experiment, out, command)
        else:
            docs.mkdir(parents=True, exist_ok=True)
        rows = list(runner.rows(trials, stop))
    if experiment.report:
        _write_report(runner)
        print(f"the report is {out / 'report.html'}")
    else:
        _write_page(runner, rows, docs, command)


def _write_report(runner: Runner) -> None:
    """Brings the report of an experiment's own folder up to date."""
    from vdit.scaling.report import write_report

    write_inputs(runner)
    write_report(runner.out, runner.out / "report.html")


def _write_page(runner: Runner, rows: list[dict[str, object]], docs: Path, command: str) -> None:
    from launch.experiments.pages.page import write_page
    from vdit.scaling.runs import write_csv

    experiment = runner.experiment
    write_csv(docs / f"{experiment.name}.csv", rows)
    commands = [command, *(shlex.join(["python", *runner.data.command(name)]) for name in experiment.data)]
    print(write_page(experiment, rows, runner.floors(), runner.data.paths, docs, commands))
