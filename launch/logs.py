"""Prints what a run has written: `python -m launch.logs sweeps/NAME ID [--lines=50] [--follow]`."""

from __future__ import annotations

import time
from pathlib import Path

from absl import flags

from launch.sweeps.state import Folder
from launch.sweeps.status import OPEN, statuses
from launch.targets import registry
from vdit.command.run import run_main
from vdit.errors import UserError


def fetch(folder: Folder, run_id: str) -> list[Path]:
    """The logs of a run, brought here from where it writes them."""
    target, settings = registry.settings_of(folder)
    registry.of(target).fetch_logs(folder, settings, run_id)
    return sorted((folder.run(run_id) / "logs").glob("*.log"))


def follow(folder: Folder, run_id: str, seconds: float) -> None:
    """Prints what is added to the logs of a run until it neither waits nor runs."""
    seen = {log: log.stat().st_size for log in fetch(folder, run_id)}
    while True:
        ended = next(row.state for row in statuses(folder) if row.id == run_id) not in OPEN
        for log in fetch(folder, run_id):
            with log.open(errors="replace") as file:
                file.seek(seen.get(log, 0))
                print(file.read(), end="", flush=True)
                seen[log] = file.tell()
        if ended:
            return
        time.sleep(seconds)
        registry.synchronise(folder)


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    folder = registry.open_folder(argv, "logs")
    known = [entry["id"] for entry in folder.plan()["runs"]]
    if len(argv) != 3 or argv[2] not in known:
        raise UserError(f"give one run of the sweep: python -m launch.logs {folder.path} {known[0]}")
    logs = fetch(folder, argv[2])
    if not logs and not values.follow:
        raise UserError(f"{argv[2]} has no logs yet")
    for log in logs:
        print(f"==> {log}")
        print("\n".join(log.read_text(errors="replace").splitlines()[-values.lines :]), flush=True)
    if values.follow:
        follow(folder, argv[2], values.every)


if __name__ == "__main__":
    flags.DEFINE_integer("lines", 50, "Last lines of each log.", lower_bound=1)
    flags.DEFINE_bool("follow", False, "Keep printing what is added, until the run neither waits nor runs.")
    flags.DEFINE_float("every", 2.0, "Seconds between two polls of --follow.", lower_bound=0.1)
    run_main(main)
