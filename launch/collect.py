"""Gathers the finished runs of a sweep: `python -m launch.collect sweeps/NAME`.

Writes sweeps/NAME/runs.csv, which `python -m vdit.scaling.fit` reads; `python -m vdit.scaling.report sweeps/NAME` makes
a page of it.
"""

from __future__ import annotations

from pathlib import Path

from launch.sweeps.state import Folder
from launch.sweeps.status import Status, statuses
from launch.targets.registry import open_folder
from vdit.command.run import run_main
from vdit.errors import UserError
from vdit.scaling.runs import flatten, write_csv


def collect(folder: Folder) -> tuple[Path, int, int]:
    """Writes runs.csv; gives its path, the number of its runs and the number of runs that are not finished.

    Raises:
      UserError: if no run is finished.
    """
    rows, left = [], 0
    for status in statuses(folder):
        result = folder.read(status.id, "result.json")
        if not result:
            left += 1
            continue
        rows.append(
            {"run": status.id, **flatten({k: v for k, v in result.items() if k != "validation"})} | _more(status)
        )
    if not rows:
        raise UserError(f"no run of {folder.path} is finished; see launch.status {folder.path}")
    path = folder.path / "runs.csv"
    write_csv(path, rows)
    return path, len(rows), left


def _more(status: Status) -> dict[str, object]:
    more: dict[str, object] = {
        "what": status.label,
        "attempts": status.attempts,
        "machine_hours": round(status.hours, 4),
    }
    return more if status.cost is None else more | {"cost": round(status.cost, 4)}


def main(argv: list[str]) -> None:
    folder = open_folder(argv, "collect")
    path, count, left = collect(folder)
    print(f"{path}: {count} runs{f', {left} not finished' if left else ''}")


if __name__ == "__main__":
    run_main(main)
