"""Metrics of a run: JSON lines, which are the record, and trackers, which are for looking."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from vdit.config import Config
from vdit.io.files import is_remote, parse_rows, write_bytes, write_text
from vdit.io.storage.lock import check_writer
from vdit.training.record.tags import tagged
from vdit.training.record.trackers import open_trackers


class MetricWriter:
    """Appends rows to metrics.jsonl and tells the trackers of config.train.tracker.

    Args:
      workdir: the run's folder.
      step: the step the run resumes from: rows of later steps, written before it was stopped, are dropped.
      config: of the run.

    Attributes:
      last: the last row of the attempts before; None if there is none.
    """

    def __init__(self, workdir: epath.Path, step: int, config: Config) -> None:
        self._workdir, self._path = workdir, workdir / "metrics.jsonl"
        kept: list[dict[str, Any]] = []
        text = ""
        if self._path.exists():
            kept = [row for row in read_metrics(workdir) if row["step"] <= step]
            text = "".join(json.dumps(row) + "\n" for row in kept)
            write_text(self._path, text)
        self.last = kept[-1] if kept else None
        self._remote = text if is_remote(workdir) else None
        self._trackers = open_trackers(config, workdir, step)
        for row in kept:  # what an attempt that was killed had not written there yet
            self._tell(row, row.get("started", time.time()) + row.get("seconds", 0.0), missing=True)

    def write(self, values: dict[str, Any]) -> None:
        """One row; `values` must hold "step". Its finite numbers go to the trackers, see `tags`."""
        check_writer(self._workdir)
        line = json.dumps(values) + "\n"
        if self._remote is None:
            with self._path.open("a") as file:
                file.write(line)
        else:  # objects in buckets cannot grow
            self._remote += line
            self._path.write_text(self._remote)
        self._tell(values, time.time())

    def add_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
        """Pictures image_YXC, uint8, by name; they are kept as samples/NAME-STEP.png, too."""
        for name, image_YXC in images.items():
            check_writer(self._workdir)
            path = self._workdir / "samples" / f"{name}-{step}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            encoded = io.BytesIO()
            Image.fromarray(image_YXC).save(encoded, "png")
            write_bytes(path, encoded.getvalue())
            for tracker in self._trackers:
                tracker.image(step, f"samples/{name}", image_YXC)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()

    def _tell(self, row: dict[str, Any], when: float, missing: bool = False) -> None:
        for tracker in self._trackers:
            values = tagged(row)
            if values := tracker.missing(row["step"], values) if missing else values:
                tracker.scalars(row["step"], values, when)


def read_metrics(workdir: epath.PathLike) -> list[dict[str, Any]]:
    """All whole rows of a run's metrics.jsonl, in order."""
    path = epath.Path(workdir) / "metrics.jsonl"
    return parse_rows(path.read_bytes(), "step") if path.exists() else []
