"""Starts a sweep: `python -m launch.sweep --sweep=configs/sweeps/physics.py --to=local [--dry_run] [--plan]`.

Started again, it starts nothing twice: finished runs stay finished and the others resume from their checkpoints.
`--config.a.b=value` sets a field in every run.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags

from launch.sweeps import compile_check, devices
from launch.sweeps.expand import Sweep, build_sweep, in_every_run
from launch.sweeps.grid import IsoFlop
from launch.sweeps.settings import TARGETS, Settings
from launch.sweeps.state import Folder
from launch.targets import registry
from launch.targets.run_file import as_comment
from vdit.command import config_flag
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.sweep is None or values.to is None:
        raise UserError(
            "--sweep and --to are both needed: "
            f"python -m launch.sweep --sweep=configs/sweeps/physics.py --to={values.to or 'local'}"
        )
    backend = registry.of(values.to)
    sweep = build_sweep(values.sweep, "--sweep")
    folder, settings = Folder(Path(values.out) / sweep.name), sweep.settings[values.to]
    devices.check(sweep, values.to, settings)
    shown = as_comment if values.dry_run else str
    if isinstance(values.sweep["runs"], IsoFlop):
        print_account(sweep, settings, values.speed, values.law, shown)
    if values.plan:
        print(shown(compile_check.plan(sweep, values.to, settings)), flush=True)
    if values.dry_run:
        for run in sweep.runs:
            print(as_comment(f"{run.id}: {run.label}{' (finished)' if folder.finished(run) else ''}"))
            print(backend.describe(sweep, run, folder, settings))
        print(as_comment(f"{len(sweep.runs)} runs of {sweep.name}, in {folder.path}; nothing was started"))
        return
    if backend.start(sweep, folder, settings):
        sys.exit(1)


def print_account(sweep: Sweep, settings: Settings, speed: str, law: str, shown: Callable[[str], str] = str) -> None:
    """Runs, FLOPs, hours and cost of an iso-FLOP grid.

    Raises:
      UserError: if earlier runs say that a budget's best size is not among its sizes.
    """
    from launch.sweeps import cost  # reads data sets, which other sweeps need not wait for

    planned = cost.costs(sweep.runs, cost.known_speeds(speed) if speed else ())
    print(shown(cost.text(planned, settings.price_of_run, getattr(settings, "at_once", 1))), flush=True)
    if law and (outside := cost.check_minima(planned, law)):
        raise UserError("the grid cannot show a minimum: " + "; ".join(outside))


if __name__ == "__main__":
    config_flag.define("sweep", "The sweep, a Python file with get_config().", "configs/sweeps/physics.py", TARGETS)
    flags.DEFINE_string("to", None, f"Where it runs: {', '.join(TARGETS)}.")
    flags.DEFINE_string("speed", "", "runs.csv of earlier runs on such machines, for the hours that a plan estimates")
    flags.DEFINE_string("law", "", "runs.csv of earlier runs: refuse budgets whose best size it puts outside the grid")
    flags.DEFINE_string("out", "sweeps", "Folder in which sweeps have their folders.")
    flags.DEFINE_bool("dry_run", False, "Print what would be run, and start nothing.")
    flags.DEFINE_bool(
        "plan", False, "Print memory, step time and cost of every run first, and refuse what does not fit."
    )
    fields = [argument for argument in sys.argv if argument.startswith("--config.")]
    sys.argv = [argument for argument in sys.argv if argument not in fields]
    with in_every_run(fields):
        run_main(main)
