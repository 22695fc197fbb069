"""The plan of one stage: an endless stream of rows, epoch after epoch, each packed anew."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence

import numpy as np

from data_pipelines.packing.balance import order_rows, row_costs
from data_pipelines.packing.best_fit import pack
from data_pipelines.packing.buckets import pack_buckets
from data_pipelines.packing.draws import chosen, visits, window_starts
from data_pipelines.packing.index import Index
from data_pipelines.packing.plan_cache import PlanFiles
from data_pipelines.packing.rows import EpochPlan
from data_pipelines.packing.segment_order import MIN_SLOTS, order_segments
from data_pipelines.packing.selection import strata, wanted
from vdit.batch import RowShape
from vdit.config import DataConfig, StageConfig
from vdit.errors import UserError
from vdit.io.files import cache_dir
from vdit.patches import Patch

LARGE = 1 << 20
"""Epochs of at least this many examples lie on disk, memory-mapped."""

KEPT = 3
"""Epochs in memory: the one that is read, the next, and the one before for readers that lag behind."""


@dataclasses.dataclass(frozen=True)
class Source:
    """What a plan knows of the examples.

    Attributes:
      index: shapes of all examples, one data set after another.
      parts: examples of each data set.
      captions: kinds of the index's text columns; () leaves them unnamed.
      patch: extent of a patch.
      latents: clips are latents, of which only the leading frames are what an encoder would make of a shorter clip.
    """

    index: Index
    parts: tuple[int, ...]
    captions: tuple[str, ...]
    patch: Patch
    latents: bool


class StagePlan:
    """The rows of one stage, numbered from 0, without end.

    Args:
      source: the examples.
      config: sizes of the rows, windows and captions.
      stage: limits and weights.
      number: of the stage, for the draws.
      seed: of all draws.

    Attributes:
      weights: mean visits of an example in an epoch, for each data set.
      members: for each data set, its examples within the stage's limits, entries of the index.
      frames: (N,) int32 frames of each example that a row takes: all, or its window.

    Raises:
      UserError: if there are no examples, one of them cannot fit a row, or a column that is asked for is not there.
    """

    def __init__(self, source: Source, config: DataConfig, stage: StageConfig, number: int, seed: int) -> None:
        self._source, self._config, self._seed, self._number = source, config, seed, number
        self._shape = RowShape(config.row_tokens, config.row_examples, config.row_text)
        index, patch = source.index, source.patch
        weights = stage.weights or config.weights or (1.0,) * len(source.parts)
        self.weights = tuple(weight * float(np.mean(config.strata_weights()[1])) for weight in weights)
        self.members = wanted(index, _members(source, stage.max_area, weights, config.fraction), config)
        self._strata = strata(index, self.members, config)
        self._columns = _columns(config, source)
        self.frames = _window_frames(index, stage.max_frames or config.max_frames, patch)
        self._grid_tokens = _grid_tokens(index, self.frames, patch)
        self._check()
        self._first_rows = [0]  # of epoch 0, 1, ... as far as known
        self._epochs: collections.OrderedDict[int, _Once] = collections.OrderedDict()
        self._lock = threading.RLock()
        self._files: PlanFiles | None = None
        if sum(w * len(part) for w, part in zip(self.weights, self.members, strict=True)) >= LARGE:
            settings = dataclasses.replace(config, path="", split="", stages=())
            key = (index.arrays(), source.parts, source.captions, patch, source.latents, settings, stage, number, seed)
            self._files = PlanFiles(cache_dir() / "plans", *key)

    @property
    def min_rows(self) -> float:
        """Rows that the patches of an epoch would fill to the last slot."""
        parts = [(self.weights[each.part] * each.weight, each.members) for each in self._strata]
        return sum(weight * float(self._grid_tokens[members].sum()) for weight, members in parts) / self._shape.tokens

    def locate(self, number: int) -> tuple[int, int]:
        """Epoch and row within it; plans the epochs before, unless their row counts are known."""
        while self._first_rows[-1] <= number:
            self.first_row(len(self._first_rows))
        epoch = bisect.bisect_right(self._first_rows, number) - 1
        return epoch, number - self._first_rows[epoch]

    def first_row(self, epoch: int) -> int:
        """Number of the first row of an epoch."""
        while len(self._first_rows) <= epoch:
            last = len(self._first_rows) - 1
            known = self._files.rows(last) if self._files else None
            rows = self.epoch(last).rows if known is None else known
            with self._lock:
                if len(self._first_rows) == last + 1:
                    self._first_rows.append(self._first_rows[last] + rows)
        return self._first_rows[epoch]

    def epoch(self, number: int) -> EpochPlan:
        """The rows of one epoch; the last few epochs used are kept."""
        with self._lock:
            if number not in self._epochs:
                self._epochs[number] = _Once(functools.partial(self._plan, number))
            self._epochs.move_to_end(number)
            while len(self._epochs) > KEPT:
                self._epochs.popitem(last=False)
            planned = self._epochs[number]
        return planned.get()

    def plan_ahead(self, number: int) -> None:
        """Plans an epoch in a thread, so that nobody has to wait for it later."""
        with self._lock:
            if number not in self._epochs:
                threading.Thread(target=self.epoch, args=(number,), daemon=True).start()

    def once(self) -> EpochPlan:
        """Every example within the limits once, at its first window and first kind of caption: for validation."""
        members = [part for part, weight in zip(self.members, self.weights, strict=True) if weight]
        columns = [
            np.full(len(part), kinds[0], np.int32)
            for part, kinds, weight in zip(self.members, self._columns, self.weights, strict=True)
            if weight
        ]
        examples = np.concatenate(members)
        rng = np.random.Generator(np.random.Philox(key=0))
        return self._pack(examples, np.zeros(len(examples), np.int32), np.concatenate(columns), 0, rng)

    def _plan(self, epoch: int) -> EpochPlan:
        phase = self.first_row(epoch) % self._config.rows_per_step
        if not self._files:
            return self._draw(epoch, phase)
        return self._files.load(epoch) or self._files.save(epoch, self._draw(epoch, phase))

    def _draw(self, epoch: int, phase: int) -> EpochPlan:
        """Draws what the epoch holds, and packs it."""
        key = np.array([self._seed % 2**64, self._number << 32 | epoch], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        drawn = []
        for each in self._strata:
            weight, columns = self.weights[each.part] * each.weight, self._columns[each.part]
            chosen, visit = visits(len(each.members), weight, epoch, self._seed, each.number)
            kinds = columns[rng.integers(len(columns), size=len(chosen), dtype=np.int32)]
            drawn.append((each.members[chosen], visit, kinds))
        examples, visit, columns = (np.concatenate(arrays) for arrays in zip(*drawn, strict=True))
        starts = np.zeros(len(examples), np.int32)
        if not self._source.latents:
            index, salt = self._source.index, self._seed + (self._number << 32)
            starts = window_starts(index.frames[examples], self.frames[examples], index.id[examples], visit, salt)
        return self._pack(examples, starts, columns, phase, rng)

    def _pack(
        self, examples: np.ndarray, starts: np.ndarray, columns: np.ndarray, phase: int, rng: np.random.Generator
    ) -> EpochPlan:
        text = np.maximum(self._source.index.text_tokens[examples, columns], 0)
        tokens = self._grid_tokens[examples] + text
        if self._config.buckets:
            order, offsets = pack_buckets(tokens, text, self._shape, self._config.buckets, rng)
        else:
            order, offsets = pack(tokens, text, self._shape, self._config.pack_window, rng)
        if self._shape.tokens >= MIN_SLOTS:
            order = order[order_segments(tokens[order], offsets)]
        rows = order_rows(row_costs(tokens[order], offsets), self._config.rows_per_step, phase, rng)
        order, offsets = _permute_rows(order, offsets, rows)
        examples = examples[order]
        return EpochPlan(offsets, examples, starts[order], self.frames[examples], columns[order], tokens[order])

    def _check(self) -> None:
        index, config = self._source.index, self._config
        if not any(len(part) for part in self.members):
            limit = f" within the limits of stage {self._number}" if len(index) else ""
            limit += f" that meet data.filter={config.filter!r}" if len(index) and config.filter else ""
            raise UserError(f"split {config.split!r} of {config.path} has no examples{limit}")
        for part, columns in zip(self.members, self._columns, strict=True):
            if not len(part):
                continue
            text = np.maximum(index.text_tokens[part][:, columns], 0).max(axis=1)
            tokens = self._grid_tokens[part] + text
            where = f"of split {config.split!r} of {config.path}"
            if (long := tokens.max()) > config.row_tokens:
                n = int(tokens.argmax())
                i = part[n]
                raise UserError(
                    f"example {int(index.id[i])} {where} ({self.frames[i]} frames of {index.height[i]}x"
                    f"{index.width[i]}, {text[n]} caption tokens) takes {long} slots; raise "
                    f"data.row_tokens={config.row_tokens} or cut clips with data.max_frames "
                    f"(now {config.max_frames or 'off'})"
                )
            if text.max() > config.row_text:
                n = int(text.argmax())
                raise UserError(
                    f"example {int(index.id[part[n]])} {where} has {text[n]} caption tokens; "
                    f"raise data.row_text={config.row_text}"
                )


class _Once:
    """A value that the first caller computes, while others wait for it."""

    def __init__(self, make: Callable[[], EpochPlan]) -> None:
        self._make, self._lock = make, threading.Lock()
        self._value: EpochPlan | None = None

    def get(self) -> EpochPlan:
        with self._lock:
            if self._value is None:
                self._value = self._make()
            return self._value


def _members(source: Source, max_area: int, weights: Sequence[float], fraction: float = 1.0) -> tuple[np.ndarray, ...]:
    """A fraction of the examples of each data set, whose frames hold at most max_area patches; none at weight 0."""
    index, patch = source.index, source.patch
    area = (index.height // patch.height) * (index.width // patch.width)
    ends = np.cumsum(source.parts)
    out = []
    for end, count, weight in zip(ends, source.parts, weights, strict=True):
        members = np.arange(end - count, end) if weight else np.zeros(0, np.int64)
        if fraction < 1:
            members = chosen(index.id, members, fraction)
        out.append(members[area[members] <= max_area] if max_area else members)
    return tuple(out)


def _window_frames(index: Index, max_frames: int, patch: Patch) -> np.ndarray:
    """Frames of each example that a row takes, (N,) int32: all, or the longest window within max_frames."""
    if not max_frames:
        return index.frames
    return np.minimum(index.frames, np.int32(patch.floor_frames(max_frames)))


def _grid_tokens(index: Index, frames: np.ndarray, patch: Patch) -> np.ndarray:
    """Patches of each example's window, (N,) int32."""
    misfit = (frames - 1) % patch.time + index.height % patch.height + index.width % patch.width
    if misfit.any():
        i = int(misfit.argmax())
        raise UserError(
            f"example {int(index.id[i])} has {frames[i]} frames of {index.height[i]}x{index.width[i]}, which patches "
            f"of {patch.time}x{patch.height}x{patch.width} do not tile; build the data set for this patch"
        )
    tokens = 1 + (frames.astype(np.int64) - 1) // patch.time
    tokens *= index.height // patch.height
    tokens *= index.width // patch.width
    return tokens.astype(np.int32)


def _columns(config: DataConfig, source: Source) -> tuple[np.ndarray, ...]:
    """For each data set, the columns of Index.text_tokens to draw from, int32; -1 where it has no captions at all."""
    known, text = list(source.captions), source.index.text_tokens
    for kind in config.captions:
        if kind not in known:
            raise UserError(f"data.captions={kind!r} is unknown to {config.path}; it has {', '.join(known)}")
    wanted = [known.index(kind) for kind in config.captions] or list(range(text.shape[1]))
    out, first = [], 0
    for number, count in enumerate(source.parts):
        has = text[first] >= 0 if count else np.ones(text.shape[1], bool)  # a data set has a kind for all or for none
        columns = [column for column in wanted if has[column]]
        if not columns and has.any():
            there = ", ".join(kind for kind, present in zip(known, has, strict=True) if present)
            raise UserError(
                f"{config.paths[number]} has no captions of kind {', '.join(config.captions)}; "
                f"add one of its kinds to data.captions: {there}"
            )
        out.append(np.array(columns or [-1], np.int32))
        first += count
    return tuple(out)


def _permute_rows(order: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rearranges the rows of a CSR list."""
    sizes = np.diff(offsets)[rows]
    new_offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shift = np.repeat(offsets[:-1][rows] - new_offsets[:-1], sizes)
    return order[np.arange(len(order)) + shift], new_offsets
