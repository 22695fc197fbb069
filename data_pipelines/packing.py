"""The plan: an endless stream of rows, each a list of whole examples, computed from shapes before a pixel is read.

A row is a pure function of (index, seed, config, row number), so the data position of a run is one integer, and any
number of hosts, started anywhere, see the same rows.
"""

from __future__ import annotations

import bisect
import collections
import dataclasses
import threading
from collections.abc import Sequence

import numpy as np

from data_pipelines.balance import order_rows, row_costs
from data_pipelines.best_fit import pack
from data_pipelines.index import Index
from vdit.batch import RowShape
from vdit.config import DataConfig, UserError
from vdit.patches import Patch


@dataclasses.dataclass(frozen=True)
class RowPlan:
    """The n examples of one row, in order.

    Attributes:
      examples: (n,) int64 entries of the index.
      starts: (n,) int32 first frame of each example's window.
      frames: (n,) int32 frames of the window.
      captions: (n,) int32 columns of Index.text_tokens: the caption kind to use.
    """

    examples: np.ndarray
    starts: np.ndarray
    frames: np.ndarray
    captions: np.ndarray

    def __len__(self) -> int:
        return len(self.examples)


@dataclasses.dataclass(frozen=True)
class EpochPlan:
    """All rows of one epoch; N examples in R rows.

    Attributes:
      offsets: (R + 1,) int64; row k holds entries offsets[k]:offsets[k + 1] of the arrays below.
      examples, starts, frames, captions: (N,) as in `RowPlan`, row after row.
      tokens: (N,) int32 slots each example takes.
    """

    offsets: np.ndarray
    examples: np.ndarray
    starts: np.ndarray
    frames: np.ndarray
    captions: np.ndarray
    tokens: np.ndarray

    @property
    def rows(self) -> int:
        return len(self.offsets) - 1

    @property
    def costs(self) -> np.ndarray:
        """(R,) cost of each row, see `balance.row_costs`."""
        return row_costs(self.tokens, self.offsets)

    def row(self, k: int) -> RowPlan:
        """Row k of the epoch."""
        part = slice(self.offsets[k], self.offsets[k + 1])
        return RowPlan(self.examples[part], self.starts[part], self.frames[part], self.captions[part])

    def fill(self, row_tokens: int) -> float:
        """Real tokens over slots."""
        return float(self.tokens.sum(dtype=np.int64)) / (self.rows * row_tokens)


class Plan:
    """An endless stream of rows; epoch after epoch, each with every example exactly once.

    Each epoch draws a caption kind for every example, a window for every clip longer than max_frames, and packs anew.

    Attributes:
      shape: what a row holds.
    """

    def __init__(
        self, index: Index, config: DataConfig, patch: Patch, seed: int, captions: Sequence[str] | None = None
    ) -> None:
        """Checks that every example fits a row; plans nothing yet.

        Args:
          index: shapes of the examples.
          config: sizes of the rows, windows and captions.
          patch: extent of a patch.
          seed: of all draws.
          captions: kinds of the index's text columns; None leaves them unnamed, and config.captions must be empty.

        Raises:
          UserError: if the config asks what the data set does not have, or an example cannot fit a row.
        """
        self.shape = RowShape(config.row_tokens, config.row_examples, config.row_text)
        if not index.text_tokens.shape[1]:  # a data set without captions: one kind, of no tokens
            index = dataclasses.replace(index, text_tokens=np.zeros((len(index), 1), np.int32))
        if not len(index):
            raise UserError(f"split {config.split!r} of {config.path} has no examples")
        self._columns = _columns(config, captions, index.text_tokens.shape[1])
        self._config, self._seed, self._index = config, seed, index
        self._frames = window_frames(index, config, patch)
        self._grid_tokens = _grid_tokens(index, self._frames, patch)
        self._check_fit()
        self._first_rows = [0]  # of epoch 0, 1, ... as far as known
        self._epochs: collections.OrderedDict[int, EpochPlan] = collections.OrderedDict()
        self._lock = threading.RLock()

    def row(self, number: int) -> RowPlan:
        """Row `number` >= 0 of the stream."""
        epoch, k = self.locate(number)
        return self.epoch(epoch).row(k)

    def locate(self, number: int) -> tuple[int, int]:
        """Epoch and row within it; plans the epochs before, whose row counts it depends on."""
        with self._lock:
            while self._first_rows[-1] <= number:
                self.epoch(len(self._first_rows) - 1)
            epoch = bisect.bisect_right(self._first_rows, number) - 1
            return epoch, number - self._first_rows[epoch]

    def first_row(self, epoch: int) -> int:
        """Number of the first row of an epoch."""
        with self._lock:
            for before in range(len(self._first_rows) - 1, epoch):
                self.epoch(before)
            return self._first_rows[epoch]

    def epoch(self, number: int) -> EpochPlan:
        """The rows of one epoch; the last few epochs asked for are kept."""
        with self._lock:
            if number not in self._epochs:
                first = self.first_row(number)
                self._epochs[number] = plan = self._plan(number, first % self._config.rows_per_step)
                if number == len(self._first_rows) - 1:
                    self._first_rows.append(first + plan.rows)
                while len(self._epochs) > 2:
                    self._epochs.popitem(last=False)
            return self._epochs[number]

    def once(self) -> EpochPlan:
        """Every example once with its first window and the first configured caption kind: for validation."""
        zeros = np.zeros(len(self._index), np.int32)
        rng = np.random.Generator(np.random.Philox(key=0))
        return self._pack(zeros, zeros + self._columns[0], 0, rng)

    def require_step(self) -> None:
        """Raises UserError if an epoch has fewer rows than one step."""
        rows, config = self.epoch(0).rows, self._config
        if rows < config.rows_per_step:
            raise UserError(
                f"the {len(self._index)} examples of split {config.split!r} of {config.path} make {rows} rows, "
                f"fewer than one step; lower data.rows_per_step={config.rows_per_step} or "
                f"data.row_tokens={config.row_tokens}"
            )

    def _plan(self, epoch: int, phase: int) -> EpochPlan:
        key = np.array([self._seed % 2**64, epoch], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        columns = self._columns[rng.integers(len(self._columns), size=len(self._index), dtype=np.int32)]
        starts = rng.integers(self._index.frames - self._frames + 1, dtype=np.int32)
        return self._pack(starts, columns, phase, rng)

    def _pack(self, starts: np.ndarray, columns: np.ndarray, phase: int, rng: np.random.Generator) -> EpochPlan:
        text = self._index.text_tokens[np.arange(len(columns)), columns]
        tokens = self._grid_tokens + text
        order, offsets = pack(tokens, text, self.shape, self._config.pack_window, rng)
        rows = order_rows(row_costs(tokens[order], offsets), self._config.rows_per_step, phase, rng)
        order, offsets = _permute_rows(order, offsets, rows)
        return EpochPlan(offsets, order, starts[order], self._frames[order], columns[order], tokens[order])

    def _check_fit(self) -> None:
        index, config = self._index, self._config
        text = index.text_tokens[:, self._columns].max(axis=1)
        tokens = self._grid_tokens + text
        if (long := tokens.max()) > config.row_tokens:
            i = int(tokens.argmax())
            raise UserError(
                f"example {int(index.id[i])} of split {config.split!r} of {config.path} ({self._frames[i]} frames of "
                f"{index.height[i]}x{index.width[i]}, {text[i]} caption tokens) takes {long} slots; raise "
                f"data.row_tokens={config.row_tokens} or cut clips with data.max_frames "
                f"(now {config.max_frames or 'off'})"
            )
        if text.max() > config.row_text:
            i = int(text.argmax())
            raise UserError(
                f"example {int(index.id[i])} of split {config.split!r} of {config.path} has {text[i]} caption tokens; "
                f"raise data.row_text={config.row_text}"
            )


def window_frames(index: Index, config: DataConfig, patch: Patch) -> np.ndarray:
    """Frames of each example that a row takes, (N,) int32: all, or the longest window within data.max_frames."""
    if not config.max_frames:
        return index.frames
    return np.minimum(index.frames, np.int32(patch.floor_frames(config.max_frames)))


def _grid_tokens(index: Index, frames: np.ndarray, patch: Patch) -> np.ndarray:
    """Patches of each example's window, (N,) int32."""
    misfit = (frames - 1) % patch.time + index.height % patch.height + index.width % patch.width
    if misfit.any():
        i = int(misfit.argmax())
        raise UserError(
            f"example {int(index.id[i])} has {frames[i]} frames of {index.height[i]}x{index.width[i]}, which patches "
            f"of {patch.time}x{patch.height}x{patch.width} do not tile; build the data set for this patch"
        )
    grid = dataclasses.replace(index, frames=frames).grid_N3(patch)
    return grid.prod(axis=1, dtype=np.int64).astype(np.int32)


def _columns(config: DataConfig, captions: Sequence[str] | None, count: int) -> np.ndarray:
    """Columns of Index.text_tokens to draw from, int32."""
    for name in ("row_tokens", "row_examples", "row_text", "rows_per_step", "pack_window"):
        if getattr(config, name) < 1:
            raise UserError(f"data.{name}={getattr(config, name)} must be at least 1")
    if not config.captions:
        return np.arange(count, dtype=np.int32)
    known = list(captions or ())
    for kind in config.captions:
        if kind not in known:
            raise UserError(f"data.captions={kind!r} is unknown to {config.path}; it has {', '.join(known)}")
    return np.array([known.index(kind) for kind in config.captions], np.int32)


def _permute_rows(order: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rearranges the rows of a CSR list."""
    sizes = np.diff(offsets)[rows]
    new_offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    shift = np.repeat(offsets[:-1][rows] - new_offsets[:-1], sizes)
    return order[np.arange(len(order)) + shift], new_offsets
