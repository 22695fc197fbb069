"""The ledger of a build: one row for every input, whatever became of it."""

from __future__ import annotations

import collections
import csv
import dataclasses
import io

from etils import epath

STATUSES = ("accepted", "scaled", "rejected")
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One input: what it was, what became of it and why; shapes are (frames, height, width)."""

    item: str
    split: str
    status: str
    reason: str = ""
    shape_before: Shape | None = None
    shape_after: Shape | None = None


class Ledger:
    """Collects entries in the order of the source."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Takes down one input."""
        if entry.status not in STATUSES:
            raise ValueError(f"unknown status {entry.status!r}")
        self.entries.append(entry)

    def save(self, path: epath.PathLike) -> None:
        """Writes the entries as CSV, shapes as FRAMESxHEIGHTxWIDTH."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([field.name for field in dataclasses.fields(Entry)])
        for e in self.entries:
            writer.writerow([e.item, e.split, e.status, e.reason, _show(e.shape_before), _show(e.shape_after)])
        epath.Path(path).write_text(text.getvalue(), encoding="utf-8")

    def table(self) -> str:
        """Counts by split and status, and what was stored, as aligned text."""
        splits = sorted({e.split for e in self.entries})
        rows = [["split", *STATUSES, "frames", "pixels/frame"]]
        for split in splits:
            entries = [e for e in self.entries if e.split == split]
            counts = collections.Counter(e.status for e in entries)
            shapes = [e.shape_after for e in entries if e.shape_after]
            areas = [y * x for _, y, x in shapes]
            span = f"{min(areas)}-{max(areas)}" if areas else "-"
            rows.append([split, *(str(counts[s]) for s in STATUSES), str(sum(s[0] for s in shapes)), span])
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        reasons = collections.Counter(e.reason for e in self.entries if e.status == "rejected")
        lines += [f"rejected {count}: {reason}" for reason, count in reasons.most_common(5)]
        return "\n".join(lines)


def _show(shape: Shape | None) -> str:
    return "x".join(map(str, shape)) if shape else ""
