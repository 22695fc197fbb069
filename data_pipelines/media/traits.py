"""What the builder notes of every clip beside its pixels: measures and a hash."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.media.hashing import clip_hash
from data_pipelines.media.measures import measure


@dataclasses.dataclass(frozen=True)
class Traits:
    """Of one clip.

    Attributes:
      measures: by name, see `measures.measure`.
      hash_B: see `hashing.clip_hash`; None for clips that are generated, of which none is another one recompressed.
    """

    measures: dict[str, np.float32]
    hash_B: np.ndarray | None


def traits_of(video_TYXC: np.ndarray, fps: float, generated: bool) -> Traits:
    """The traits of a clip of uint8 RGB."""
    return Traits(measure(video_TYXC, fps), None if generated else clip_hash(video_TYXC))
