"""Metric writers: JSON lines, which are the record, and TensorBoard, which is for looking."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from etils import epath
from tensorboardX import SummaryWriter

from vdit.io.files import is_remote, parse_rows, write_text
from vdit.io.lock import check_writer


class MetricWriter:
    """Appends rows to metrics.jsonl and to TensorBoard.

    Args:
      workdir: the run's folder.
      step: the step the run resumes from: rows of later steps, written before it was stopped, are dropped.
    """

    def __init__(self, workdir: epath.Path, step: int):
        self._workdir, self._path = workdir, workdir / "metrics.jsonl"
        kept: list[str] = []
        if self._path.exists():
            kept = [json.dumps(row) + "\n" for row in read_metrics(workdir) if row["step"] <= step]
            write_text(self._path, "".join(kept))
        self._remote = "".join(kept) if is_remote(workdir) else None
        self._board = SummaryWriter(os.fspath(workdir / "tensorboard"), purge_step=step + 1, flush_secs=30)

    def write(self, values: dict[str, Any]) -> None:
        """One row; `values` must hold "step". Finite numbers also go to TensorBoard, nested ones under joined names."""
        check_writer(self._workdir)
        line = json.dumps(values) + "\n"
        if self._remote is None:
            with self._path.open("a") as file:
                file.write(line)
        else:  # objects in buckets cannot grow
            self._remote += line
            self._path.write_text(self._remote)
        for name, value in _numbers(values).items():
            self._board.add_scalar(name, value, values["step"])

    def close(self) -> None:
        self._board.close()


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """All whole rows of a run's metrics.jsonl, in order."""
    path = epath.Path(workdir) / "metrics.jsonl"
    return parse_rows(path.read_bytes(), "step") if path.exists() else []


def _numbers(values: dict[str, Any], prefix: str = "") -> dict[str, float]:
    out: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            out |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            out[f"{prefix}{name}"] = float(value)
    return out
