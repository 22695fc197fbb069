"""What a plan consists of: rows of whole examples, and the rows of an epoch."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.packing.balance import row_costs
from data_pipelines.packing.index import Index


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

    def caption_tokens(self, index: Index) -> np.ndarray:
        """(N,) caption tokens among `tokens`; the others are patches."""
        if not index.text_tokens.size:
            return np.zeros_like(self.tokens)
        return np.maximum(index.text_tokens[self.examples, self.captions], 0)  # -1 where there is no caption

    def fill(self, row_tokens: int) -> float:
        """Real tokens over slots."""
        return float(self.tokens.sum(dtype=np.int64)) / max(1, self.rows * row_tokens)
