"""The near duplicates that a build has found, read from the data set's list of them."""

from __future__ import annotations

import csv
from typing import NamedTuple

from etils import epath

from data_pipelines.packing.index import DUPLICATES_FILE, REBUILD
from vdit.errors import UserError


class Pair(NamedTuple):
    """Two clips that look alike.

    Attributes:
      clips: (split, number) of each.
      difference: share of the bits of their hashes that differ.
      mirrored: whether one looks like the other mirrored.
      similarity: cosine of their embeddings; None if there are none.
    """

    clips: tuple[tuple[str, int], tuple[str, int]]
    difference: float
    mirrored: bool
    similarity: float | None


def read_pairs(directory: epath.PathLike) -> list[Pair]:
    """All pairs; none of a data set without the file: its clips are generated, or derived.

    Raises:
      UserError: if the file is damaged.
    """
    path = epath.Path(directory) / DUPLICATES_FILE
    if not path.is_file():
        return []
    try:
        with path.open("r") as file:
            return [
                Pair(
                    ((row["split"], int(row["number"])), (row["other_split"], int(row["other_number"]))),
                    float(row["difference"]),
                    row["mirrored"] == "1",
                    float(row["similarity"]) if row["similarity"] else None,
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}); {REBUILD}") from error
