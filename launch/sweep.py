"""Starts a sweep: `python -m launch.sweep --sweep=configs/sweeps/physics.py --to=local [--dry_run] [--plan]`.

Started again, it starts nothing twice: finished runs stay finished and the others go on from their checkpoints.
"""

from __future__ import annotations

import sys
from pathlib import Path

from absl import flags

from launch import backends, planning
from launch.folder import Folder
from launch.settings import TARGETS
from launch.sweeps import build_sweep
from vdit import config_flag
from vdit.config import UserError, no_arguments, run_main


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.sweep is None or values.to is None:
        raise UserError(f"--sweep=configs/sweeps/X.py and --to={'|'.join(TARGETS)} are both needed")
    backend = backends.of(values.to)
    sweep = build_sweep(values.sweep, "--sweep")
    folder, settings = Folder(Path(values.out) / sweep.name), sweep.settings[values.to]
    if values.plan:
        print(planning.plan(sweep, values.to, settings), flush=True)
    if values.dry_run:
        for run in sweep.runs:
            print(f"# {run.id}: {run.label}{' (finished)' if folder.finished(run) else ''}")
            print(backend.describe(sweep, run, folder, settings))
        print(f"# {len(sweep.runs)} runs of {sweep.name}, in {folder.path}; nothing was started")
        return
    if backend.start(sweep, folder, settings):
        sys.exit(1)


if __name__ == "__main__":
    config_flag.define("sweep", "The sweep, a Python file with get_config().", "configs/sweeps/physics.py", TARGETS)
    flags.DEFINE_string("to", None, f"Where it runs: {', '.join(TARGETS)}.")
    flags.DEFINE_string("out", "sweeps", "Folder in which sweeps have their folders.")
    flags.DEFINE_bool("dry_run", False, "Print what would be run, and start nothing.")
    flags.DEFINE_bool(
        "plan", False, "Print memory, step time and cost of every run first, and refuse what does not fit."
    )
    run_main(main)
