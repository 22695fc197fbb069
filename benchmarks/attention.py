"""How much attention work is done for the work there is: `python -m benchmarks.attention [--json]`.

Executed blocks times their area over the sum of n^2 of the segments, on rows that the plan packs: the mixed set of
benchmarks.data, and images of one size. The count is of the very function from which the TPU kernel's list of blocks is
made (models.splash_attention.active_blocks). Below stands what that comes to in time: over the speed of the kernels
with such blocks, as the TPU compiler schedules them (planning.estimate.SPEED). No accelerator is needed.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from benchmarks import data  # its --examples and --json are taken here too
from benchmarks.pages import Target
from vdit.command.run import run_main
from vdit.config import ATTENTION_BLOCKS
from vdit.planning.estimate import SPEED

BLOCKS = (128, 256, 512, 1024)
IMAGES = (64, 256, 1024, 4096)
"""Tokens of the images of which rows are full."""

TARGET = Target(1.15, most=True)
"""Of the mixed rows, with the kernel's own block."""


def work(rows: list[np.ndarray], slots: int, block: int) -> float:
    """Executed query-key pairs over those of the segments; `rows` holds the lengths of each row's segments."""
    from vdit.models.attention.splash import active_blocks

    executed = needed = 0.0
    for lengths in rows:
        segments_BL = np.zeros((1, slots), np.int32)
        segments_BL[0, : lengths.sum()] = np.repeat(np.arange(len(lengths), dtype=np.int32) + 1, lengths)
        executed += float(active_blocks(segments_BL, segments_BL, block).sum()) * block**2
        needed += float((lengths.astype(np.float64) ** 2).sum())
    return executed / needed


def mixed_rows(examples: int) -> tuple[list[np.ndarray], int]:
    """(lengths of the segments of every row, slots of a row) of the mixed set of benchmarks.data."""
    from benchmarks.data import PACKED, ROW, mixed_index
    from data_pipelines.packing.packing import Plan
    from vdit.patches import Patch

    epoch = Plan(mixed_index(examples), PACKED, Patch(), 0).epoch(0)
    return np.split(epoch.tokens, epoch.offsets[1:-1]), ROW


def main(argv: list[str]) -> None:
    del argv
    mixed, slots = mixed_rows(data.EXAMPLES.value)
    first = f"mixed images and clips, {len(mixed)} rows"
    sets = {first: mixed} | {f"images of {n} tokens": [np.full(slots // n, n)] for n in IMAGES}
    table: dict[str, Any] = {name: {block: work(rows, slots, block) for block in BLOCKS} for name, rows in sets.items()}
    if data.JSON.value:
        print(json.dumps(table, indent=1))
        return
    print(f"executed over needed pairs, rows of {slots:,} slots    " + "".join(f"block {b:<6}" for b in BLOCKS))
    for name, values in table.items():
        print(f"{name:52}" + "".join(f"{values[block]:<12.3f}" for block in BLOCKS))
        print(f"{'  over the speed':52}" + "".join(f"{values[block] / SPEED[block]:<12.3f}" for block in BLOCKS))
    block = ATTENTION_BLOCKS["splash"]
    reached = table[first][block]
    print(f"mixed rows, block {block}: {reached:.3f}   {TARGET.verdict(reached)}")


if __name__ == "__main__":
    run_main(main)
