"""What the library needs of data, and nothing more: `data_pipelines.reading` gives it, and so can anybody's own loader.

A trainer takes batches (`TrainingData`), the planner the lengths of packed rows (`RowLengths`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Interface:
    """What the data set fixes: length P of a patch vector and width E of caption features."""

    patch: int
    text: int


def interface_of(meta: Mapping[str, Any]) -> Interface:
    """What the model must take, from a data set's description."""
    return Interface(math.prod(meta["patch"]) * meta["channels"], meta["text_encoder"]["width"])


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """What a run is trained on and validated with. Only `meta` and `batches` are needed.

    Attributes:
      meta: the description that is left in the workdir's dataset.json: "patch" (frames, rows, columns), "channels" and
        "text_encoder" ({"width": ...}); sampling also reads "autoencoder", "fps", "captions" and "size" (rows and
        columns of what is stored, where all clips have the same). "datasets", if it is there, lists what a resumed run
        must find again (see `workdir.check`).
      batches: (step, part, parts) -> the `PackedBatch`es of steps step, step + 1, ..., without end, as NumPy arrays:
        of each the part-th of `parts` equal runs of its data.rows_per_step rows. What a step holds must not depend on
        where reading began or on the number of processes.
      mean: gives the value of each channel, in [-1, 1], that counts as zero where diffusion.mean is empty.
      std: gives the standard deviation of the numbers about that mean, for diffusion.input_std=-1; 0 = unknown.
      validation: for each held-out split, (part, parts) -> batches of one shape that hold every example once.
      ids: gives the ids of the examples in each of some rows, counted over all steps, for the record of a divergence.
      account: (patches, examples seen) -> what else a result says of the data, such as epochs.
    """

    meta: Mapping[str, Any]
    batches: Callable[[int, int, int], Iterator[Any]]
    mean: Callable[[], tuple[float, ...]] = lambda: (0.0,)
    std: Callable[[tuple[float, ...]], float] = lambda mean: 0.0
    validation: Mapping[str, Callable[[int, int], Iterator[Any]]] = dataclasses.field(default_factory=dict)
    ids: Callable[[Sequence[int]], Iterable[Iterable[int]]] = lambda rows: [[]] * len(rows)
    account: Callable[[int, int], dict[str, Any]] = lambda patches, examples: {}


@dataclasses.dataclass(frozen=True)
class CropData(TrainingData):
    """What an autoencoder is trained on: batches are crops_BTYXC uint8, all of one size.

    Attributes:
      sample: gives the first crops of the run, for the scale of the latents.
      components: gives the first principal components of the patches of the data, with which weights start.
    """

    sample: Callable[[int], np.ndarray] = lambda count: np.zeros(0, np.uint8)
    components: Callable[[int], Any] = lambda count: None


@dataclasses.dataclass(frozen=True)
class RowLengths:
    """How an epoch of packed rows is filled, for the planner.

    Attributes:
      interface: sizes that the data fix.
      pixels: patches are stored as uint8 pixels, not as bfloat16 latents.
      patches, caption_tokens: of every example, row after row.
      offsets: where each row's examples start, (rows + 1,).
    """

    interface: Interface
    pixels: bool
    patches: np.ndarray
    caption_tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> list[np.ndarray]:
        """Tokens of the segments of each row, in order."""
        return np.split(self.patches + self.caption_tokens, self.offsets[1:-1])
