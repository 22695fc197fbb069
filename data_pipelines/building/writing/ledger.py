"""The ledger of a build: what became of every input, and why."""

from __future__ import annotations

import collections
import csv
import dataclasses
from collections.abc import Sequence
from typing import IO, Any

from vdit.io.formatting import align

STORED = ("accepted", "scaled")
"""Statuses of clips that are in the data set."""

STATUSES = (*STORED, "cut", "rejected")
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One input, or one piece of an input that was cut.

    Attributes:
      item: name of the input; a piece has the range of its frames behind it.
      split: of the data set.
      status: accepted, scaled (accepted at another size than its own), cut (into pieces that have rows of their
        own) or rejected.
      reason: why it was rejected, or what else was changed.
      shape_before, shape_after: (frames, height, width), as shown and as stored.
      fps_before, fps_after: frames per second; 0 = unknown.
    """

    item: str
    split: str
    status: str
    reason: str = ""
    shape_before: Shape | None = None
    shape_after: Shape | None = None
    fps_before: float = 0.0
    fps_after: float = 0.0


def make_entry(values: Sequence[Any]) -> Entry:
    """An entry of its values as JSON gives them back."""
    read: list[Any] = [tuple(value) if isinstance(value, list) else value for value in values]
    return Entry(*read)


COLUMNS = tuple(field.name for field in dataclasses.fields(Entry))


class Ledger:
    """Writes entries as they come and keeps what the closing table needs; memory does not grow with the entries.

    Args:
      file: CSV is written to it, shapes as FRAMESxHEIGHTxWIDTH.
    """

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(COLUMNS)
        self.counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self._frames: collections.Counter[str] = collections.Counter()
        self._areas: dict[str, tuple[int, int]] = {}

    @property
    def accepted(self) -> int:
        """Clips that are stored."""
        return sum(count for (_, status), count in self.counts.items() if status in STORED)

    def add(self, entry: Entry) -> None:
        """Takes down one input."""
        if entry.status not in STATUSES:
            raise ValueError(f"unknown status {entry.status!r}")
        rates = [f"{rate:.6g}" if rate else "" for rate in (entry.fps_before, entry.fps_after)]
        shapes = [_show(entry.shape_before), _show(entry.shape_after)]
        self._writer.writerow([entry.item, entry.split, entry.status, entry.reason, *shapes, *rates])
        self.counts[entry.split, entry.status] += 1
        if entry.status == "rejected":
            self.reasons[entry.reason] += 1
            if len(self.reasons) > 10_000:  # reasons that name a frame or a size are many
                self.reasons = collections.Counter(dict(self.reasons.most_common(100)))
        if entry.shape_after:
            frames, height, width = entry.shape_after
            least, most = self._areas.get(entry.split, (height * width, height * width))
            self._areas[entry.split] = (min(least, height * width), max(most, height * width))
            self._frames[entry.split] += frames

    def table(self) -> str:
        """Counts by split and status, and what was stored, as aligned text."""
        rows = [["split", *STATUSES, "frames", "pixels/frame"]]
        for split in sorted({split for split, _ in self.counts}):
            counts = [str(self.counts[split, status]) for status in STATUSES]
            span = "-".join(map(str, self._areas[split])) if split in self._areas else "-"
            rows.append([split, *counts, str(self._frames[split]), span])
        lines = [align(rows, right=range(len(rows[0])))]
        lines += [f"rejected {count}: {reason}" for reason, count in self.reasons.most_common(5)]
        return "\n".join(lines)


def _show(shape: Shape | None) -> str:
    return "x".join(map(str, shape)) if shape else ""
