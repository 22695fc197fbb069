"""How the runs of a sweep fare: `python -m launch.status sweeps/NAME [--json] [--watch]`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from absl import flags

from launch.sweeps.status import OPEN, statuses, table
from launch.targets import registry
from vdit.command.run import run_main


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    while True:
        folder = registry.open_folder(argv, "status")
        rows = statuses(folder)
        if values.json:
            print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
        else:
            clear = "\033[2J\033[H" if values.watch and sys.stdout.isatty() else ""
            print(clear + table(rows, time.time()), flush=True)
        if not values.watch or not (folder.launched_by() or any(row.state in OPEN for row in rows)):
            return
        time.sleep(values.every)


if __name__ == "__main__":
    flags.DEFINE_bool("json", False, "Print a JSON list.")
    flags.DEFINE_bool("watch", False, "Print the table again and again until no run is waiting or running.")
    flags.DEFINE_float("every", 5.0, "Seconds between two tables of --watch.", lower_bound=0.1)
    run_main(main)
