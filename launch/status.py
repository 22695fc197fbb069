"""How the runs of a sweep fare: `python -m launch.status sweeps/NAME [--json]`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from absl import flags

from launch.sweeps.state import Folder
from launch.targets import registry
from vdit.command import run_main
from vdit.errors import UserError

SILENT = 90.0
"""Seconds without a sign of life after which a process is called silent."""


@dataclasses.dataclass(frozen=True)
class Status:
    """One run.

    Attributes:
      id, label: which.
      state: "planned", "waiting", "running", "interrupted" (its launcher is gone), "stopped", "failed" or "finished".
      step, steps: taken, and to take.
      loss: of the newest step; the validation loss once it is finished.
      rate: steps per second.
      hours, cost: time on machines so far, and what it has cost; None where no price is set.
      seen: Unix time of the last sign of life.
      attempts: how often it was started.
      reason: why it waits or has failed.
    """

    id: str
    label: str
    state: str
    step: int
    steps: int
    loss: float | None
    rate: float | None
    hours: float
    cost: float | None
    seen: float | None
    attempts: int
    reason: str


def statuses(folder: Folder) -> list[Status]:
    """All runs of a sweep, in its order."""
    plan = folder.plan()
    price = registry.price_per_hour(plan["target"], plan["settings"])
    return [_status(folder, entry, price, plan["target"]) for entry in plan["runs"]]


def _status(folder: Folder, entry: dict[str, Any], price: float, target: str) -> Status:
    run_id = entry["id"]
    state, beat = folder.state(run_id), folder.read(run_id, "heartbeat.json")
    result = folder.read(run_id, "result.json")
    name = "planned" if state is None else state.state
    if result:
        name = "finished"
    elif name in ("running", "waiting") and target == "local":
        alive = folder.locked(run_id) or (name == "waiting" and folder.locked("launcher"))
        name = ("running" if folder.locked(run_id) else name) if alive else "interrupted"
    seen = beat.get("time")
    hours = state.hours(seen or time.time()) if state else 0.0
    return Status(
        id=run_id,
        label=entry["label"],
        state=name,
        step=int(result.get("steps") or beat.get("step", 0)),
        steps=int(beat.get("steps") or entry["steps"]),
        loss=result.get("loss") or beat.get("loss"),
        rate=beat.get("steps_per_second") if name == "running" else None,
        hours=hours,
        cost=hours * price if price else None,
        seen=seen,
        attempts=len(state.attempts) if state else 0,
        reason=_silent(folder, run_id, beat) or (state.reason if state and name != "finished" else ""),
    )


def _silent(folder: Folder, run_id: str, beat: dict[str, Any]) -> str:
    """Which processes of a run of several have given no sign of life for long, while another has."""
    read = {i: folder.read(run_id, f"processes/{i}.json") for i in range(beat.get("processes", 1))}
    newest = max((values.get("time", 0.0) for values in read.values()), default=0.0)
    silent = [
        f"process {i} ({values.get('host', '?')}) silent for {ago(newest - values['time']).removesuffix(' ago')}"
        for i, values in read.items()
        if values.get("doing") != "finished" and 0 < values.get("time", 0.0) < newest - SILENT
    ]
    return ", ".join(silent) if len(read) > 1 else ""


COLUMNS = ("run", "state", "step", "loss", "steps/s", "hours", "cost", "seen", "what")


def table(rows: list[Status], now: float) -> str:
    """The rows for people."""
    cells = [COLUMNS, *(_cells(row, now) for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS) - 1)]
    lines = ["  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[-1]]) for line in cells]
    counts = Counter(row.state for row in rows)
    costs = [row.cost for row in rows if row.cost is not None]
    spent = f", cost {sum(costs):.2f}" if costs else ""
    total = f"{sum(row.hours for row in rows):.2f} h on machines{spent}"
    return "\n".join([*lines, f"{len(rows)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()) + f"; {total}"])


def _cells(row: Status, now: float) -> tuple[str, ...]:
    return (
        row.id,
        row.state,
        f"{row.step}/{row.steps}",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if not row.rate else f"{row.rate:.3g}",
        f"{row.hours:.2f}" if row.hours else "",
        "" if row.cost is None else f"{row.cost:.2f}",
        "" if row.seen is None else ago(now - row.seen),
        row.label + (f"  ({row.reason})" if row.reason else ""),
    )


def ago(seconds: float) -> str:
    """A time span in its largest unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{max(0, seconds):.0f} s ago"


def open_folder(argv: list[str], command: str) -> Folder:
    """The sweep that the command line names, brought up to date with its bucket.

    Raises:
      UserError: if it names none.
    """
    if len(argv) < 2:
        raise UserError(f"give the folder of a sweep: python -m launch.{command} sweeps/NAME")
    folder = Folder(Path(argv[1]))
    registry.synchronise(folder)
    return folder


def main(argv: list[str]) -> None:
    folder = open_folder(argv, "status")
    rows = statuses(folder)
    if flags.FLAGS.json:
        print(json.dumps([dataclasses.asdict(row) for row in rows], indent=1))
    else:
        print(table(rows, time.time()))


if __name__ == "__main__":
    flags.DEFINE_bool("json", False, "print a JSON list")
    run_main(main)
