"""How the runs of a sweep fare, and the table that `launch.status` prints."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from typing import Any

from launch.sweeps.settings import TARGETS
from launch.sweeps.state import Folder
from vdit.config_dict import build
from vdit.io.formatting import align

SILENT = 90.0
"""Seconds without a heartbeat after which a process is called silent."""
OPEN = ("waiting", "running")


@dataclasses.dataclass(frozen=True)
class Status:
    """One run.

    Attributes:
      id, label: which; the fields in which it differs from other runs of the sweep.
      state: "planned", "waiting", "running", "interrupted" (its launcher is gone), "stopped", "failed" or "finished".
      step, steps: taken, and to take.
      loss: training loss of the newest step.
      validation: validation loss at its end, None before.
      rate: steps per second.
      hours, cost: time on machines so far, and what it has cost; None where no price is set.
      seen: Unix time of the last heartbeat.
      attempts: how often it was started.
      reason: why it waits or has failed.
    """

    id: str
    label: str
    state: str
    step: int
    steps: int
    loss: float | None
    validation: float | None
    rate: float | None
    hours: float
    cost: float | None
    seen: float | None
    attempts: int
    reason: str


def statuses(folder: Folder) -> list[Status]:
    """All runs of a sweep, in its order."""
    plan = folder.plan()
    price = build(plan["settings"], TARGETS[plan["target"]]).price_of_run
    labels = differing([(entry["label"], entry["varies"]) for entry in plan["runs"]])
    found = zip(plan["runs"], labels, strict=True)
    return [_status(folder, entry, label, price, plan["target"]) for entry, label in found]


def differing(runs: list[tuple[str, list[str]]]) -> list[str]:
    """Labels of runs without the fields that all of them set alike.

    Args:
      runs: label, and the fields that a run sets, as a.b=value.
    """
    common = set.intersection(*(set(fields) for _, fields in runs))
    left = [" ".join(field for field in fields if field not in common) for _, fields in runs]
    return [short or label for short, (label, _) in zip(left, runs, strict=True)]


def _status(folder: Folder, entry: dict[str, Any], label: str, price: float, target: str) -> Status:
    run_id = entry["id"]
    state, beat = folder.state(run_id), _usable(folder.read(run_id, "heartbeat.json"))
    result = _usable(folder.read(run_id, "result.json"))
    name = "planned" if state is None else state.state
    if result:
        name = "finished"
    elif name in OPEN and target == "local":
        alive = folder.locked(run_id) or (name == "waiting" and folder.launched_by())
        name = ("running" if folder.locked(run_id) else name) if alive else "interrupted"
    seen = beat.get("time")
    hours = state.hours(seen or time.time()) if state else 0.0
    return Status(
        id=run_id,
        label=label,
        state=name,
        step=int(result.get("steps") or beat.get("step", 0)),
        steps=int(result.get("steps") or beat.get("steps") or entry["steps"]),
        loss=beat.get("loss"),
        validation=result.get("loss"),
        rate=beat.get("steps_per_second") if name == "running" else None,
        hours=hours,
        cost=hours * price if price else None,
        seen=seen,
        attempts=len(state.attempts) if state else 0,
        reason="" if name == "finished" else _silent(folder, run_id, beat) or (state.reason if state else ""),
    )


def _usable(values: dict[str, Any]) -> dict[str, Any]:
    """The values without those that should be numbers and are not, as in a file that something else has written."""
    whole, any_number = ("step", "steps", "processes"), ("time", "loss", "steps_per_second")
    kinds = {**dict.fromkeys(whole, int), **dict.fromkeys(any_number, int | float)}
    return {name: value for name, value in values.items() if name not in kinds or isinstance(value, kinds[name])}


def _silent(folder: Folder, run_id: str, beat: dict[str, Any]) -> str:
    """Which processes of a run of several have sent no heartbeat for long, while another has."""
    read = {i: _usable(folder.read(run_id, f"processes/{i}.json")) for i in range(beat.get("processes", 1))}
    newest = max((values.get("time", 0.0) for values in read.values()), default=0.0)
    silent = [
        f"process {i} ({values.get('host', '?')}) silent for {ago(newest - values['time']).removesuffix(' ago')}"
        for i, values in read.items()
        if values.get("doing") != "finished" and 0 < values.get("time", 0.0) < newest - SILENT
    ]
    return ", ".join(silent) if len(read) > 1 else ""


COLUMNS = ("run", "state", "step", "loss", "validation", "steps/s", "hours", "cost", "seen", "what")


def table(rows: list[Status], now: float) -> str:
    """The rows for people, without columns in which nothing is known, and their totals."""
    cells = [_cells(row, now) for row in rows]
    shown = [i for i in range(len(COLUMNS)) if any(line[i] for line in cells) or COLUMNS[i] in ("loss", "what")]
    lines = align([[line[i] for i in shown] for line in (COLUMNS, *cells)])
    counts = Counter(row.state for row in rows)
    costs = [row.cost for row in rows if row.cost is not None]
    spent = f", cost {sum(costs):.2f}" if costs else ""
    total = f"{sum(row.hours for row in rows):.2f} h on machines{spent}"
    return f"{lines}\n{len(rows)} runs: " + ", ".join(f"{n} {s}" for s, n in counts.items()) + f"; {total}"


def _cells(row: Status, now: float) -> tuple[str, ...]:
    return (
        row.id,
        row.state,
        f"{row.step}/{row.steps}",
        "" if row.loss is None else f"{row.loss:.4f}",
        "" if row.validation is None else f"{row.validation:.4f}",
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
