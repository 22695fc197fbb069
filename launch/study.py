"""The CPU scaling study: `python -m launch.study --out=study [--full]`; what `make study` runs.

It is an experiment (configs/study.py) with a folder and a report of its own. Every stage leaves a file and is skipped
when that file is there, so a study that was stopped resumes where it was.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from absl import flags

from launch.experiments import spec
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    experiment = spec.load(values.config + (":full" if values.full else ""))
    if experiment.report is None:
        raise UserError(f"--config={values.config} is an experiment without a report; run it with launch.experiment")
    from launch.experiments.conduct import conduct

    out = Path(values.out)
    command = shlex.join(["python", "-m", "launch.study", *sys.argv[1:]])
    conduct(experiment, out, out, speed=values.speed, command=command, dry_run=values.dry_run)


if __name__ == "__main__":
    flags.DEFINE_string("out", "study", "Folder of the study: data, runs, samples, report.html.")
    flags.DEFINE_bool("full", False, "Budgets over 1.5 decades instead of 1.2; takes about twice as long.")
    flags.DEFINE_string("config", "configs/study.py", "Python file whose get_config() returns the study.")
    flags.DEFINE_bool("dry_run", False, "Build the data, print the plan, and train nothing.")
    flags.DEFINE_string("speed", "", "runs.csv of earlier runs on such a machine, for the hours of the plan.")
    run_main(main)
