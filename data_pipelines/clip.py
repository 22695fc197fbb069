"""What a source of clips yields to the builder."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import numpy as np

from vdit.patches import Patch


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user asks of a source.

    Attributes:
      patch: extent of a patch in pixels; lengths are 1 + k * patch.time, sides multiples of the patch.
      max_tokens: most spatial patches of one frame group; 0 = no limit.
      fps: frames per second wanted; 0 = the source's own rate.
      limit: most training clips; 0 = all. Other splits shrink in proportion.
      seed: of a source that is generated.
      film: the film's file, where the user has it; empty = fetch it.
      workers: processes that make clips; the result does not depend on it.
    """

    patch: Patch = Patch()
    max_tokens: int = 0
    fps: float = 0.0
    limit: int = 0
    seed: int = 0
    film: str = ""
    workers: int = 2


@dataclasses.dataclass(frozen=True)
class Clip:
    """One clip of pixels with its captions.

    Attributes:
      item: what it is in the source, for the ledger.
      id: 64-bit identity, distinct within the source; the noise of training is a function of it.
      split: which split it belongs to.
      video_TYXC: uint8 RGB.
      fps: frames per second of video_TYXC.
      captions: text by caption kind.
      extra: further arrays and strings to store; the same names, dtypes and numbers of axes in every clip of a source.
      shape_before: (frames, height, width) in the source, if video_TYXC is not as it was there.
      notes: what was changed, for the ledger.
    """

    item: str
    id: int
    split: str
    video_TYXC: np.ndarray
    fps: float
    captions: dict[str, str]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    shape_before: tuple[int, int, int] | None = None
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An input that gives no clip, and why."""

    item: str
    split: str
    reason: str
    shape_before: tuple[int, int, int] | None = None


def stable_id(*parts: object) -> int:
    """A 64-bit id that depends on nothing but its parts: the first 8 bytes of their SHA-256."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
