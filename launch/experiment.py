"""Puts a claim to the test: `python -m launch.experiment --name=physics [--dry_run]`.

Builds the data, trains every arm with every seed, measures, and writes docs/experiments/NAME.md with its figures and
its runs as NAME.csv. Everything is kept under --out and nothing is done twice: a run that several experiments share is
trained once, and one that was stopped resumes from its checkpoint. Experiments are configs/experiments/*.py.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from absl import flags

from launch.experiments import spec
from launch.experiments.spec import TEXT_ENCODER
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.name is None:
        raise UserError(f"--name is needed: one of {', '.join(spec.names())}")
    experiment, out, docs = spec.load(values.name), Path(values.out), Path(values.docs)
    own = [f"--name={values.name}"]
    if values.shrink > 1:
        experiment, out = spec.shrunk(experiment, values.shrink), out / f"shrunk-{values.shrink:g}"
        docs, own = out / "docs", [*own, f"--shrink={values.shrink:g}"]
    if experiment.report and not values.shrink > 1:
        raise UserError(f"{values.name} has a folder and a report of its own; run it with launch.study --config")
    from launch.experiments.conduct import conduct

    own += [f"--text_encoder={values.text_encoder}"] if values.text_encoder != TEXT_ENCODER else []
    conduct(
        experiment,
        out,
        docs,
        text_encoder=values.text_encoder,
        speed=values.speed,
        command=shlex.join(["python", "-m", "launch.experiment", *own]),
        dry_run=values.dry_run,
        stop=values.shrink == 1,
    )


if __name__ == "__main__":
    flags.DEFINE_string("name", None, "The experiment: a file of configs/experiments, without .py.")
    flags.DEFINE_string("out", "experiments", "Folder of data and runs, shared by all experiments.")
    flags.DEFINE_string("docs", "docs/experiments", "Folder of the pages.")
    flags.DEFINE_float("shrink", 1.0, "Make everything so many times smaller, to see that it runs.", lower_bound=1)
    flags.DEFINE_bool("dry_run", False, "Build the data, print the plan, and train nothing.")
    flags.DEFINE_string("speed", "", "runs.csv of earlier runs on such a machine, for the hours of the plan.")
    flags.DEFINE_string("text_encoder", TEXT_ENCODER, "Encoder of the captions, as of data_pipelines.build.")
    run_main(main)
