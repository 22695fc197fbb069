"""Two runs beside each other: the fields in which they differ, what they reached, and their losses at equal steps."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.io.files import read_json
from vdit.io.formatting import align
from vdit.training.record.identity import flat
from vdit.training.record.metrics import read_metrics

POINTS = 10
REACHED = ("steps", "params", "tokens", "flops", "train_seconds", "loss", "loss_ood")
"""What is shown of result.json."""


@dataclasses.dataclass(frozen=True)
class Record:
    """What a run has written.

    Attributes:
      name: of its folder.
      fields: its config, dotted.
      result: result.json, empty while it is not finished.
      steps_S, losses_S: training loss at the steps that were logged.
    """

    name: str
    fields: dict[str, Any]
    result: dict[str, Any]
    steps_S: np.ndarray
    losses_S: np.ndarray

    def loss_at(self, step: float) -> float | None:
        """Training loss at a step, between the logged ones; None outside them."""
        if not len(self.steps_S) or not self.steps_S[0] <= step <= self.steps_S[-1]:
            return None
        return float(np.interp(step, self.steps_S, self.losses_S))


def read(workdir: Path) -> Record:
    """Reads the workdir of a run.

    Raises:
      UserError: if it is none.
    """
    if not (workdir / "config.json").is_file():
        raise UserError(f"{workdir} is not the workdir of a run: it has no config.json")
    rows = [row for row in read_metrics(workdir) if "loss" in row]
    result = read_json(workdir / "result.json") if (workdir / "result.json").is_file() else {}
    steps, losses = ([row[name] for row in rows] for name in ("step", "loss"))
    return Record(workdir.name, flat(read_json(workdir / "config.json")), result, np.array(steps), np.array(losses))


def text(one: Record, other: Record) -> str:
    """Both runs as tables."""
    names = sorted(n for n in one.fields.keys() | other.fields.keys() if one.fields.get(n) != other.fields.get(n))
    fields = [[name, str(one.fields.get(name, "")), str(other.fields.get(name, ""))] for name in names]
    reached = [
        [name, _number(one.result.get(name)), _number(other.result.get(name))]
        for name in REACHED
        if name in one.result or name in other.result
    ]
    curve = [
        [f"loss at step {step}", _number(one.loss_at(step)), _number(other.loss_at(step))]
        for step in _steps(one, other)
    ]
    rows = [["", one.name, other.name], *fields, *reached, *curve]
    if not names:
        rows.insert(1, ["no field differs", "", ""])
    return align(rows)


def panel(one: Record, other: Record) -> Any:
    """Their training losses by step, as a panel of `vdit.render`."""
    from vdit.render.panels import Panel, Series

    series = [Series(run.name, run.steps_S, run.losses_S) for run in (one, other)]
    return Panel("step", "training loss", series, log_x=False)


def _steps(one: Record, other: Record) -> list[int]:
    """Steps up to the end of the longer run."""
    ends = [run.steps_S[-1] for run in (one, other) if len(run.steps_S)]
    starts = [run.steps_S[0] for run in (one, other) if len(run.steps_S)]
    return [int(step) for step in np.unique(np.linspace(max(starts), max(ends), POINTS).round())] if ends else []


def _number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, (int, float)) else ""
