"""After divergence: back to the last good checkpoint, skipping the batches that followed it.

Bad steps (`spikes`) that repeat end an attempt with `Diverged`. `train_with_rollback` then records which rows followed
the last good checkpoint and starts again. A run that opens a checkpoint skips the rows recorded for it
(`skip_batches`), so rolling back is the same as being killed and started again, and a kill at any moment of it changes
nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import jax
from etils import epath
from jax.experimental import multihost_utils

from vdit.config import TrainConfig
from vdit.errors import UserError
from vdit.io.files import read_json, write_json
from vdit.parallel.preemption import notice
from vdit.training.recovery.checkpoint import Checkpoints, Position, set_aside

NAME = "skipped_batches.json"
"""File of a workdir: which rows were skipped, and why."""

ATTEMPTS = 3
"""Times that a run resumes from one checkpoint before it gives up."""

Ids = Callable[[Sequence[int]], Iterable[Iterable[int]]]
Result = TypeVar("Result")


class Diverged(Exception):
    """Bad steps repeat; `position` is where, `start` where this attempt began."""

    def __init__(self, position: Position, start: Position):
        super().__init__(f"diverged at step {position.step}")
        self.position, self.start = position, start


def skip_batches(workdir: epath.Path, position: Position) -> None:
    """Moves the position of a checkpoint past the rows that led to divergence from it."""
    for entry in _entries(workdir):
        first, end = entry["rows"]
        if (entry["checkpoint"], first) == (position.step, position.next_row):
            position.next_row = end
            position.skipped.append([first, end])


def first_skipped_row(position: Position) -> int:
    """The first of the rows skipped just before a position; its next row if none were."""
    first = position.next_row
    for begin, end in reversed(position.skipped):
        first = begin if end == first else first
    return first


def train_with_rollback(attempt: Callable[[], Result], workdir: epath.Path, config: TrainConfig, ids: Ids) -> Result:
    """Calls `attempt` until it does not diverge, each time skipping the rows that led there.

    Args:
      attempt: opens the run at its newest checkpoint, and trains it.
      workdir, config: of the run.
      ids: the example ids of each of some rows of the data; called by the first process only.

    Raises:
      UserError: if it diverges `ATTEMPTS` times from the same checkpoint.
    """
    with notice():  # so that a signal to stop in one attempt stops the next
        while True:
            try:
                return attempt()
            except Diverged as error:
                position, start = error.position, error.start
            _roll_back(workdir, config, position, start, ids)


def _roll_back(workdir: epath.Path, config: TrainConfig, position: Position, start: Position, ids: Ids) -> None:
    """Records which rows to skip, and sets aside the checkpoints after the last good one."""
    with Checkpoints(workdir, config, create=False) as checkpoints:
        good = checkpoints.newest_position(lambda found: found.spikes.strikes == 0)
        if good is None and checkpoints.latest is not None:
            raise UserError(f"{workdir} diverged by step {position.step} and has no checkpoint from before it")
    good = start if good is None else good  # none was saved yet: where the run, or branch, begins
    skip_batches(workdir, good)
    entries = _entries(workdir)
    new = good.next_row < position.next_row  # else it was recorded already, before a kill
    where = f"{workdir} diverged at step {position.step}, resumed from step {good.step}"
    if new and sum(entry["checkpoint"] == good.step for entry in entries) >= ATTEMPTS - 1:
        raise UserError(
            f"{where}, {ATTEMPTS} times; begin a new workdir with a lower optimizer.learning_rate, or resume with "
            "train.spike=0 if only a high loss is what was wrong"
        )
    if jax.process_count() > 1:  # all have read what the first is about to change
        multihost_utils.sync_global_devices("skipped_batches_read")
    if new and jax.process_index() == 0:
        write_json(workdir / NAME, [*entries, _entry(position, good, ids)])
        print(f"{where}: rows {good.next_row} to {position.next_row} are skipped, see {NAME}", file=sys.stderr)
    set_aside(workdir, good.step)  # the others wait in it


def _entry(position: Position, good: Position, ids: Ids) -> dict[str, Any]:
    """What is recorded: the rows from a good checkpoint to a position, and the examples of the bad steps."""
    per_step = (position.next_row - good.next_row) // (position.step - good.step)
    rows = [first + i for _, first, _ in position.spikes.bad for i in range(per_step)]
    examples = {row: list(map(int, found)) for row, found in zip(rows, ids(rows), strict=True)}
    bad = [
        {"step": step, "loss": loss, "rows": {row: examples[row] for row in range(first, first + per_step)}}
        for step, first, loss in position.spikes.bad
    ]
    return {"checkpoint": good.step, "step": position.step, "rows": [good.next_row, position.next_row], "bad": bad}


def _entries(workdir: epath.Path) -> list[dict[str, Any]]:
    """What was written down so far.

    Raises:
      UserError: if the file is damaged: without it the run would train on the rows that it was to skip.
    """
    if not (workdir / NAME).exists():
        return []
    entries = read_json(workdir / NAME, list)
    for entry in entries:
        try:
            first, end = entry["rows"]
            good = all(isinstance(number, int) for number in (first, end, entry["checkpoint"]))
        except (TypeError, KeyError, ValueError):
            good = False
        if not good:
            raise UserError(f"{workdir / NAME} is damaged ({entry!r:.100}); restore it or start a new workdir")
    return entries
