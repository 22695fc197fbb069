"""What the builder notes of every clip beside its pixels: measures, a hash, and an embedding where one is wanted."""

from __future__ import annotations

import dataclasses

import numpy as np

from data_pipelines.media.clip import Clip
from data_pipelines.media.filters import FILE_MEASURES
from data_pipelines.media.hashing import clip_hash
from data_pipelines.media.measures import measure, rounded


@dataclasses.dataclass(frozen=True)
class Traits:
    """Of one clip.

    Attributes:
      measures: by name, see `measures.measure`, and what is known beside the pixels.
      hash_B: see `hashing.clip_hash`; None for clips that are generated, of which none is another one recompressed.
      embedding_E: see `building.curation.embedding`; None if it was not asked for.
    """

    measures: dict[str, np.float32]
    hash_B: np.ndarray | None
    embedding_E: np.ndarray | None = None


def traits_of(clip: Clip, generated: bool) -> Traits:
    """The traits of a clip of pixels."""
    measures = measure(clip.video_TYXC, clip.fps)
    if generated:
        return Traits(measures, None)
    known = dict.fromkeys(FILE_MEASURES, float("nan")) | clip.known
    measures |= {name: rounded(value) for name, value in known.items()}
    return Traits(measures, clip_hash(clip.video_TYXC))
