"""What a build did to its inputs, read from the data set's ledger."""

from __future__ import annotations

import collections
import csv
from typing import Any

from etils import epath

from data_pipelines.packing.index import REBUILD
from vdit.errors import UserError

COMMON = 8
"""Reasons and changes of size that are listed."""


def read_changes(directory: epath.PathLike, split: str) -> dict[str, Any] | None:
    """Counts of what became of the inputs of a split, and how the sizes of those that were kept changed.

    Returns:
      None if the data set has no ledger: it was not written by `data_pipelines.build`. Else
      "statuses": inputs by status; "reasons": {"status: reason": inputs}, the commonest; "scale": stored over original
      height (the least, mean and greatest) of the clips whose size changed; "resized": the commonest changes, as
      {"from", "to", "clips"} with HEIGHTxWIDTH; "frames_dropped": share of the kept clips' frames that is not stored.

    Raises:
      UserError: if the ledger is damaged.
    """
    path = epath.Path(directory) / "ledger.csv"
    if not path.is_file():
        return None
    statuses, reasons = collections.Counter[str](), collections.Counter[str]()
    resized = collections.Counter[tuple[str, str]]()
    scales, frames = [], [0, 0]
    try:
        with path.open("r") as file:
            for row in csv.DictReader(file):
                if row["split"] != split:
                    continue
                statuses[row["status"]] += 1
                if row["reason"]:
                    reasons[f"{row['status']}: {row['reason']}"] += 1
                if row["shape_before"] and row["shape_after"]:
                    before, after = (tuple(map(int, row[f"shape_{when}"].split("x"))) for when in ("before", "after"))
                    frames[0] += before[0]
                    frames[1] += after[0]
                    if before[1:] != after[1:]:
                        scales.append(after[1] / before[1])
                        resized[f"{before[1]}x{before[2]}", f"{after[1]}x{after[2]}"] += 1
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {REBUILD}") from error
    return {
        "statuses": dict(statuses),
        "reasons": dict(reasons.most_common(COMMON)),
        "scale": {"min": min(scales), "mean": sum(scales) / len(scales), "max": max(scales)} if scales else None,
        "resized": [{"from": a, "to": b, "clips": count} for (a, b), count in resized.most_common(COMMON)],
        "frames_dropped": 1 - frames[1] / frames[0] if frames[0] else 0.0,
    }
