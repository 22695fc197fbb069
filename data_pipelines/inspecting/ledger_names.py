"""Which file each clip of a data set was made of, by its ledger."""

from __future__ import annotations

import csv
from collections.abc import Collection

from etils import epath

STORED = ("accepted", "scaled")


def names_of(directory: epath.PathLike, split: str, numbers: Collection[int], examples: int) -> dict[int, str]:
    """Names of the inputs of some clips of a split, by number; empty if there is no ledger that goes with it.

    The ledger's rows of what was stored are in the order of the examples.

    Args:
      directory: of the data set.
      split: of the clips.
      numbers: of the clips.
      examples: how many the split has.
    """
    path = epath.Path(directory) / "ledger.csv"
    if not path.is_file():
        return {}
    names, count = {}, 0
    try:
        with path.open("r") as file:
            for row in csv.DictReader(file):
                if row["split"] == split and row["status"] in STORED:
                    if count in numbers:
                        names[count] = row["item"]
                    count += 1
    except (OSError, KeyError, ValueError, csv.Error):
        return {}
    return names if count == examples else {}
