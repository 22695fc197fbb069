"""Several data sets read as one: their examples stand one data set after another."""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from typing import Any

import numpy as np

from data_pipelines.packing.index import Index, join_indexes
from data_pipelines.reading.store import Dataset, Window
from vdit.batch import Example
from vdit.config import DataConfig
from vdit.errors import UserError

SAME = ("patch", "channels", "dtype", "autoencoder", "text_encoder")
"""Keys of `vdit.json` in which the data sets of a mixture agree."""


class Mixture:
    """Data sets under one numbering, with the methods of a `Dataset`.

    Args:
      datasets: at least one; alike in `SAME`. They may differ in splits and kinds of caption.

    Attributes:
      datasets: the data sets.
      path: their directories, separated by commas.
      meta: the description of the first, with the sources, licences and kinds of caption of all.
      patch: extent of a patch.
      splits: names of all splits.

    Raises:
      UserError: if they cannot be mixed.
    """

    def __init__(self, *datasets: Dataset) -> None:
        self.datasets = datasets
        first = datasets[0]
        for other in datasets[1:]:
            for key in SAME:
                if other.meta[key] != first.meta[key]:
                    raise UserError(
                        f"{other.path} has {key}={other.meta[key]}, but {first.path} {first.meta[key]}; data sets that "
                        "are mixed must agree: build one of them again"
                    )
        self.path = ",".join(str(dataset.path) for dataset in datasets)
        self.patch = first.patch
        self.splits: tuple[str, ...] = _union(dataset.splits for dataset in datasets)
        self.meta: dict[str, Any] = {
            **first.meta,
            "source": "+".join(_union((d.meta["source"],) for d in datasets)),
            "licence": "; ".join(_union((d.meta["licence"],) for d in datasets)),
            "captions": list(_union(d.meta["captions"] for d in datasets)),
        }

    def parts(self, split: str) -> tuple[int, ...]:
        """Number of examples of each data set; 0 where it has no such split."""
        self._check(split)
        return tuple(d.size(split) if split in d.splits else 0 for d in self.datasets)

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return sum(self.parts(split))

    def index(self, split: str) -> Index:
        """Shapes of the examples of a split; text_tokens is -1 where a data set has no caption of a kind.

        Raises:
          UserError: if no data set has the split, or an index is damaged.
        """
        self._check(split)
        kinds = self.meta["captions"]
        parts = []
        for dataset in self.datasets:
            if split in dataset.splits:
                index = dataset.index(split)
                text = np.full((len(index), len(kinds)), -1, np.int32)
                text[:, [kinds.index(kind) for kind in dataset.meta["captions"]]] = index.text_tokens
                parts.append(dataclasses.replace(index, text_tokens=text))
        return join_indexes(parts)

    def frames(self, split: str) -> np.ndarray:
        """As `Dataset.frames`."""
        return self.index(split).frames

    def locate(self, split: str, i: int) -> tuple[Dataset, int]:
        """The data set that example `i` stands in, and its number there."""
        ends = list(itertools.accumulate(self.parts(split)))
        if not 0 <= i < ends[-1]:
            raise IndexError(f"example {i} of {ends[-1]}")
        part = bisect.bisect_right(ends, i)
        return self.datasets[part], i - (ends[part - 1] if part else 0)

    def example(self, split: str, i: int) -> dict[str, Any]:
        """As `Dataset.example`."""
        dataset, local = self.locate(split, i)
        return dataset.example(split, local)

    def read_clip(
        self, split: str, i: int, start_frame: int = 0, frames: int = 0, caption: str | None = None
    ) -> Window:
        """As `Dataset.read_clip`."""
        dataset, local = self.locate(split, i)
        return dataset.read_clip(split, local, start_frame, frames, caption)

    def read_example(
        self, split: str, i: int, start_frame: int = 0, frames: int = 0, caption: str | None = None
    ) -> Example:
        """As `Dataset.read_example`."""
        dataset, local = self.locate(split, i)
        return dataset.read_example(split, local, start_frame, frames, caption)

    def _check(self, split: str) -> None:
        if split not in self.splits:
            raise UserError(f"{self.path} has no split {split!r}; it has {', '.join(self.splits)}")


def open_data(config: DataConfig) -> Dataset | Mixture:
    """The data set that config.path names, or the mixture of several.

    Raises:
      UserError: if one of them is not a whole data set, or they cannot be mixed.
    """
    if not config.paths:
        raise UserError("data.path names no data set; set --config.data.path=DIR")
    datasets = [Dataset(path) for path in config.paths]
    return datasets[0] if len(datasets) == 1 else Mixture(*datasets)


def _union(groups: Any) -> tuple[Any, ...]:
    """All members of the groups, each once, in order of first appearance."""
    return tuple(dict.fromkeys(itertools.chain.from_iterable(groups)))
