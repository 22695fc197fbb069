"""What evaluation needs of a data set: arrays, captions and the stored truth of clips, by split and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from vdit.patches import Patch


class Clip(Protocol):
    """One clip.

    Attributes:
      id: 64-bit identity.
      fps: frames per second.
      video_TYXC: uint8 pixels.
      text_ME: features of the caption that was chosen; no rows if none was.
    """

    @property
    def id(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def video_TYXC(self) -> np.ndarray: ...
    @property
    def text_ME(self) -> np.ndarray: ...


class Clips(Protocol):
    """Clips in splits, numbered from 0. `data_pipelines.reading.store.Dataset` is one; any other will do.

    Attributes:
      path: where they are, for messages.
      meta: "source", "build", "captions" (kinds, that which says most first) and "autoencoder".
      patch: extent of a patch that every clip fits.
      splits: their names.
    """

    @property
    def path(self) -> Any: ...
    @property
    def meta(self) -> Mapping[str, Any]: ...
    @property
    def patch(self) -> Patch: ...
    @property
    def splits(self) -> Sequence[str]: ...

    def __hash__(self) -> int: ...

    def size(self, split: str) -> int:
        """Number of clips of a split."""
        ...

    def frames(self, split: str) -> np.ndarray:
        """Frames of every clip of a split, (N,)."""
        ...

    def read_clip(self, split: str, i: int, start_frame: int = 0, frames: int = 0, caption: str | None = None) -> Clip:
        """Clip `i` of a split, with the features of its caption of a kind; None = of none."""
        ...

    def example(self, split: str, i: int) -> dict[str, Any]:
        """All that is stored of clip `i`: "video", "caption_KIND", and the truth that its source knows."""
        ...
