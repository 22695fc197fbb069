"""Which row is denoised where and when: rows are shared out over the shards of the mesh as evenly as can be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

NONE = -1
"""Number of the row of a shard that has none."""


class RowSchedule(NamedTuple):
    """Evaluations in a row during which every shard keeps its row.

    Attributes:
      rows_B: number of each shard's row.
      first_B: how many evaluations that row has had before.
      evaluations: how many follow.
    """

    rows_B: tuple[int, ...]
    first_B: tuple[int, ...]
    evaluations: int


def schedule_rows(evaluations_R: Sequence[int], shards: int) -> list[RowSchedule]:
    """The fewest evaluations of all shards together that give every row its own (McNaughton 1959).

    Rows fill one shard's time after another's. One that does not fit at the end of a shard's time has its first
    evaluations at the beginning of the next one's, so that three rows on two shards take one and a half times as long
    as one row, not twice.
    """
    length = max(*evaluations_R, -(-sum(evaluations_R) // shards))
    spans: list[tuple[int, int, int, int, int]] = []  # shard, begin, end, row, evaluations before
    shard = at = 0
    for row, count in enumerate(evaluations_R):
        here = min(count, length - at)
        spans.append((shard, at, at + here, row, count - here))
        at += here
        if at == length:
            shard, at = shard + 1, count - here
            if at:
                spans.append((shard, 0, at, row, 0))
    edges = sorted({edge for _, begin, end, _, _ in spans for edge in (begin, end)})
    out = []
    for begin, end in zip(edges[:-1], edges[1:], strict=True):
        rows_B, first_B = [NONE] * shards, [0] * shards
        for shard, start, stop, row, before in spans:
            if start <= begin < stop:
                rows_B[shard], first_B[shard] = row, before + begin - start
        out.append(RowSchedule(tuple(rows_B), tuple(first_B), end - begin))
    return out
