"""Requests to rows: best fit, and a second layout with other captions for guidance away from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vdit.batch import Example, PackedBatch, RowShape, empty_row, pack_row, stack_rows
from vdit.config import DataConfig
from vdit.diffusion.samplers import IDLE
from vdit.generation.request import PatchedRequest, Request
from vdit.generation.rows.timing import Timing
from vdit.patches import Grid, Patch

ROW_STEP = 512
"""Rows longer than those of training grow in steps of this many slots, so that few programs are compiled."""

PLACEMENTS = 2048
"""Placements of jobs, about, that are spent on random orders that may need fewer rows."""

LEVEL_STEP = 32
"""Tables of times longer than a row has examples grow in steps of this many."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A request with all that is known about it before it is denoised.

    Attributes:
      examples: what it takes in a row: if it has a negative caption, slots that fill up the shorter caption, then its
        caption and patches.
      other: the same with the negative caption in place of the caption; None if it has none.
    """

    request: Request
    patched: PatchedRequest
    timing: Timing
    examples: tuple[Example, ...]
    other: tuple[Example, ...] | None

    @property
    def tokens(self) -> int:
        return sum(example.tokens for example in self.examples)

    @property
    def words(self) -> int:
        return sum(len(example.text_ME) for example in self.examples)

    @property
    def levels(self) -> int:
        return len(self.timing.start_K)


def job(request: Request, patched: PatchedRequest, timing: Timing, guided: bool) -> Job:
    """Makes the examples of a request; its negative caption counts only with guidance."""
    example = patched.example
    if request.negative_ME is None or not guided:
        return Job(request, patched, timing, (example,), None)
    negative = dataclasses.replace(example, text_ME=request.negative_ME)
    # Patches must lie in the same slots under both captions, and a segment be one range of slots: a segment of its
    # own fills up the shorter caption.
    most = max(len(example.text_ME), len(negative.text_ME))
    return Job(request, patched, timing, *((_filler(e, most - len(e.text_ME)), e) for e in (example, negative)))


def _filler(example: Example, words: int) -> Example:
    text_ME = np.zeros((words, example.text_ME.shape[1]), np.float32)
    return Example(0, example.patches_LP[:0], Grid(0, 0, 0), example.fps, text_ME)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Static sizes of a program: the row's, and the levels of times a row can hold."""

    row: RowShape
    levels: int


def sizes(jobs: Sequence[Job], data: DataConfig) -> Sizes:
    """The rows of training; longer ones, in steps, for a request that does not fit them."""
    need = max(job.tokens for job in jobs)
    tokens = data.row_tokens if need <= data.row_tokens else -(-need // ROW_STEP) * ROW_STEP
    examples = max(data.row_examples, 2)  # a request with a negative caption takes two
    levels = max(job.levels for job in jobs)
    levels = examples if levels <= examples else -(-levels // LEVEL_STEP) * LEVEL_STEP
    return Sizes(RowShape(tokens, examples, max(data.row_text, *(job.words for job in jobs), 0)), levels)


def assign(jobs: Sequence[Job], sizes: Sizes) -> list[list[int]]:
    """Numbers of the jobs in each row, in as few rows as best fit finds: longest first, then in some random orders.

    With a few jobs a row it is chance how well one order fills the rows.
    """
    needs_J4 = np.array([[job.tokens, job.words, len(job.examples), job.levels] for job in jobs])
    whole = np.array([sizes.row.tokens, sizes.row.text, sizes.row.examples, sizes.levels])
    fewest = int((-(-needs_J4.sum(0) // np.maximum(whole, 1))).max())
    rng = np.random.default_rng(0)
    order = np.argsort(-needs_J4[:, 0], kind="stable")
    best = _best_fit(order, needs_J4, whole)
    for _ in range(PLACEMENTS // len(jobs)):
        if len(best) == fewest:
            break
        best = min(best, _best_fit(rng.permutation(order), needs_J4, whole), key=len)
    return best


def _best_fit(order: np.ndarray, needs_J4: np.ndarray, whole: np.ndarray) -> list[list[int]]:
    """Rows of jobs: each in turn goes where the fewest slots are left of what it fits."""
    rows: list[list[int]] = []
    room_R4 = np.zeros((0, len(whole)), whole.dtype)  # free tokens, caption slots, examples and levels of each row
    for i in order:
        fits = np.flatnonzero((room_R4 >= needs_J4[i]).all(1))
        if len(fits):
            row = fits[np.argmin(room_R4[fits, 0])]
        else:
            row, room_R4 = len(rows), np.concatenate([room_R4, whole[None]])
            rows.append([])
        rows[row].append(int(i))
        room_R4[row] -= needs_J4[i]
    return rows


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to be denoised, and an empty one at the end (number -1).

    Attributes:
      batch, other: as the network sees them, with the captions and with those to keep away from.
      null_RN: examples of `other` whose caption is replaced by the null caption.
      level_RL: entry of the row's table that each slot has; 0 is time 0.
      start_RK: time at which each entry starts.
      tables: of each row, table_EKW: what happens at its evaluations, see `programs.TABLE`. Entry 0 is time 0 and does
        nothing.
      slots: of each job in the rows, by number: its row and the slots of its patches.
    """

    batch: PackedBatch
    other: PackedBatch
    null_RN: np.ndarray
    level_RL: np.ndarray
    start_RK: np.ndarray
    tables: list[np.ndarray]
    slots: dict[int, tuple[int, slice]]


def lay_out(numbers: Sequence[Sequence[int]], jobs: Sequence[Job], sizes: Sizes, patch: Patch) -> Rows:
    """Lays the jobs of each row out."""
    chosen = [[jobs[i] for i in row] for row in numbers]
    batch = _stack([pack_row([e for job in row for e in job.examples], sizes.row, patch) for row in chosen])
    other = _stack(
        [pack_row([e for job in row for e in job.other or job.examples], sizes.row, patch) for row in chosen]
    )
    count, entries = len(numbers) + 1, 1 + sizes.levels
    null_RN = np.zeros((count, sizes.row.examples), bool)
    level_RL = np.zeros((count, sizes.row.tokens), np.int32)
    start_RK = np.zeros((count, entries), np.float32)
    tables, slots = [], {}
    for r, row in enumerate(numbers):
        table_EKW = idle_table(max(len(jobs[i].timing.times_EK) for i in row), entries)
        slot, example, level = 0, 0, 1
        for i in row:
            timing, own = jobs[i].timing, slice(level, level + jobs[i].levels)
            slot, example = slot + jobs[i].tokens, example + len(jobs[i].examples)
            patches = slice(slot - len(timing.level_L), slot)
            slots[i] = r, patches
            level_RL[r, patches] = np.where(timing.level_L, timing.level_L + level - 1, 0)
            null_RN[r, example - 1] = jobs[i].other is None
            start_RK[r, own] = timing.start_K
            table_EKW[: len(timing.times_EK), own] = table(timing.times_EK, timing.scale_EK, timing.weights_EK25)
            level += jobs[i].levels
        tables.append(table_EKW)
    tables.append(idle_table(max(map(len, tables)), entries))
    return Rows(batch, other, null_RN, level_RL, start_RK, tables, slots)


def table(times_EK: np.ndarray, scale_EK: np.ndarray, weights_EK25: np.ndarray) -> np.ndarray:
    """What happens at each evaluation to what has each of K times, table_EKW float32; see `Timing`."""
    shape = times_EK.shape
    columns = times_EK[..., None], scale_EK[..., None], weights_EK25.reshape(*shape, IDLE.size)
    return np.concatenate(columns, -1).astype(np.float32)


def idle_table(evaluations: int, entries: int) -> np.ndarray:
    """A table of time 0 that changes nothing."""
    shape = evaluations, entries
    return table(np.zeros(shape), np.ones(shape), np.broadcast_to(IDLE, (*shape, *IDLE.shape)))


def _stack(rows: list[PackedBatch]) -> PackedBatch:
    """Rows and an empty one."""
    return stack_rows([*rows, empty_row(rows[0])])
