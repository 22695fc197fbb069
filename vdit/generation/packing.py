"""Requests to rows: best fit, and a second layout with other captions for guidance away from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from vdit.batch import Example, PackedBatch, RowShape, pack_row, stack_rows
from vdit.config import DataConfig
from vdit.diffusion.samplers import IDLE
from vdit.generation.request import Canvas, Request
from vdit.generation.timing import Timing
from vdit.patches import Grid, Patch

ROW_STEP = 512
"""Rows longer than those of training grow in steps of this many slots, so that few programs are compiled."""

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
    canvas: Canvas
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


def job(request: Request, canvas: Canvas, timing: Timing, guided: bool) -> Job:
    """Makes the examples of a request; its negative caption counts only with guidance."""
    example = canvas.example
    if request.negative_ME is None or not guided:
        return Job(request, canvas, timing, (example,), None)
    negative = dataclasses.replace(example, text_ME=request.negative_ME)
    # Patches must lie in the same slots under both captions, and a segment be one range of slots: a segment of its
    # own fills up the shorter caption.
    most = max(len(example.text_ME), len(negative.text_ME))
    return Job(request, canvas, timing, *((_filler(e, most - len(e.text_ME)), e) for e in (example, negative)))


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
    """Numbers of the jobs in each row: best fit, longest first."""
    rows: list[list[int]] = []
    room: list[np.ndarray] = []  # free tokens, caption slots, examples and levels of each row
    whole = np.array([sizes.row.tokens, sizes.row.text, sizes.row.examples, sizes.levels])
    for i in sorted(range(len(jobs)), key=lambda i: -jobs[i].tokens):
        need = np.array([jobs[i].tokens, jobs[i].words, len(jobs[i].examples), jobs[i].levels])
        fits = [r for r, free in enumerate(room) if (free >= need).all()]
        if not fits:
            rows.append([])
            room.append(whole.copy())
            fits = [len(rows) - 1]
        best = min(fits, key=lambda r: int(room[r][0]))
        rows[best].append(i)
        room[best] -= need
    return rows


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows to be denoised together.

    Attributes:
      batch, other: as the network sees them, with the captions and with those to keep away from.
      null_BN: examples of `other` whose caption is replaced by the null caption.
      level_BL: entry of the row's table of times that each slot has; 0 is time 0.
      start_BK: time at which each entry starts.
      times_EBK, weights_EBK25, scale_EBK: see `Timing`; entry 0 is time 0 and does nothing.
      slots: of each job in the rows, by number: its row and the slots of its patches.
    """

    batch: PackedBatch
    other: PackedBatch
    null_BN: np.ndarray
    level_BL: np.ndarray
    start_BK: np.ndarray
    times_EBK: np.ndarray
    weights_EBK25: np.ndarray
    scale_EBK: np.ndarray
    slots: dict[int, tuple[int, slice]]


def lay_out(numbers: Sequence[Sequence[int]], jobs: Sequence[Job], sizes: Sizes, patch: Patch, count: int) -> Rows:
    """Lays the jobs of some rows out, with empty rows up to `count`."""
    chosen = [[jobs[i] for i in row] for row in numbers]
    batch = _stack([pack_row([e for job in row for e in job.examples], sizes.row, patch) for row in chosen], count)
    other = _stack(
        [pack_row([e for job in row for e in job.other or job.examples], sizes.row, patch) for row in chosen], count
    )
    evaluations = max(len(job.timing.times_EK) for row in chosen for job in row)
    null_BN = np.zeros((count, sizes.row.examples), bool)
    level_BL = np.zeros((count, sizes.row.tokens), np.int32)
    times_EBK = np.zeros((evaluations, count, 1 + sizes.levels), np.float32)
    start_BK = np.zeros(times_EBK.shape[1:], np.float32)
    scale_EBK = np.ones_like(times_EBK)
    weights_EBK25 = np.broadcast_to(IDLE.astype(np.float32), (*times_EBK.shape, *IDLE.shape)).copy()
    slots = {}
    for b, row in enumerate(numbers):
        slot, example, level = 0, 0, 1
        for i in row:
            timing, own = jobs[i].timing, slice(level, level + jobs[i].levels)
            slot, example = slot + jobs[i].tokens, example + len(jobs[i].examples)
            patches = slice(slot - len(timing.level_L), slot)
            slots[i] = b, patches
            level_BL[b, patches] = np.where(timing.level_L, timing.level_L + level - 1, 0)
            null_BN[b, example - 1] = jobs[i].other is None
            during = slice(len(timing.times_EK))
            start_BK[b, own], times_EBK[during, b, own] = timing.start_K, timing.times_EK
            weights_EBK25[during, b, own], scale_EBK[during, b, own] = timing.weights_EK25, timing.scale_EK
            level += jobs[i].levels
    return Rows(batch, other, null_BN, level_BL, start_BK, times_EBK, weights_EBK25, scale_EBK, slots)


def _stack(rows: list[PackedBatch], count: int) -> PackedBatch:
    empty = rows[0].map(np.zeros_like)
    empty = dataclasses.replace(empty, text_index_BL=np.full_like(empty.text_index_BL, -1))
    return stack_rows(rows + [empty] * (count - len(rows)))
