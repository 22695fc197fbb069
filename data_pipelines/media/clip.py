"""What a source of clips is asked for, and what it yields to the builder."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from vdit.patches import Patch

CLIP_BYTES = 256 << 20
"""Clips longer than this many bytes of pixels are split, unless Options.max_frames asks for longer ones."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What a user asks of a source; the clips of an input depend on nothing else.

    Attributes:
      patch: extent of a patch in pixels; lengths are 1 + k * patch.time, sides multiples of the patch.
      max_tokens: most spatial patches of one frame group; 0 = no limit.
      fps: most frames per second (the film: exactly); 0 = the source's own rate.
      limit: most training inputs; 0 = all. Other splits shrink in proportion.
      seed: of a source that is generated.
      world: what the clips of `physics` are drawn from, see `sources.physics.world`; empty = every kind, six colours.
      val: share of the inputs that makes up the split `val`, chosen by the hash of their names.
      shots: split videos where the picture cuts.
      min_side: inputs whose shorter side has fewer pixels are rejected.
      min_frames: shorter clips are rejected, counted after thinning to `fps`.
      max_frames: longer clips are split; 0 = at `CLIP_BYTES` of pixels.
      hop: the pieces of the film's shots begin every so many kept frames; 0 = end to end.
      reject: kinds of clip to leave out, of `filters.FILTERS`, and conditions on measures.
      trim_bars: cut letterbox and pillarbox bars off.
      film: the film's file, where the user has it; empty = fetch it.
      stamps: folder of the stamps, where the user has it; empty = fetch them.
      data_dir: where prepared TFDS data sets are; empty = TFDS's own default.
      video_feature, text_feature: names of the TFDS features; empty = found by their types.
    """

    patch: Patch = Patch()
    max_tokens: int = 0
    fps: float = 0.0
    limit: int = 0
    seed: int = 0
    world: str = ""
    val: float = 0.0
    shots: bool = False
    min_side: int = 0
    min_frames: int = 1
    max_frames: int = 0
    hop: int = 0
    reject: tuple[str, ...] = ()
    trim_bars: bool = False
    film: str = ""
    stamps: str = ""
    data_dir: str = ""
    video_feature: str = ""
    text_feature: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """One thing that a source reads: a file, a film, an example of a data set. Sent to worker processes.

    Attributes:
      item: what it is in the source, for the ledger; distinct.
      split: which split its clips belong to.
      path: file to read, local or a URL, which is staged on this machine first; empty = none.
      weight: bytes to read, or about as much work; small inputs are handed out several at a time.
      captions: text by caption kind.
      data: whatever else the source needs to know.
      notes: what the ledger is to say of its clips beside what was changed.
      signature: of the content, which tells whether it is still the same; empty = the builder signs the file.
    """

    item: str
    split: str
    path: str = ""
    weight: int = 0
    captions: dict[str, str] = dataclasses.field(default_factory=dict)
    data: Any = None
    notes: tuple[str, ...] = ()
    signature: str = ""


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
      fps_before: frames per second in the source; 0 = as `fps`.
      notes: what was changed, for the ledger.
      known: measures that its pixels do not tell, of `filters.FILE_MEASURES` and `filters.SUBJECT_MEASURES`.
    """

    item: str
    id: int
    split: str
    video_TYXC: np.ndarray
    fps: float
    captions: dict[str, str]
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    shape_before: tuple[int, int, int] | None = None
    fps_before: float = 0.0
    notes: tuple[str, ...] = ()
    known: dict[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Rejection:
    """An input, or a piece of one, that gives no clip, and why."""

    item: str
    split: str
    reason: str
    shape_before: tuple[int, int, int] | None = None
    fps_before: float = 0.0


@dataclasses.dataclass(frozen=True)
class Cut:
    """An input that was cut into several clips, which are `Clip` and `Rejection` of their own."""

    item: str
    split: str
    reason: str
    shape_before: tuple[int, int, int] | None = None
    fps_before: float = 0.0


Outcome = Clip | Rejection | Cut


def stable_id(*parts: object) -> int:
    """A 64-bit id that depends on nothing but its parts: the first 8 bytes of their SHA-256."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")


class _HasSplit(Protocol):
    @property
    def split(self) -> str: ...


_Item = TypeVar("_Item", bound=_HasSplit)


def limited(items: Sequence[_Item], limit: int) -> list[_Item]:
    """The first `limit` training items, and as large a share of each other split, at least one; 0 = all."""
    return list(first_of(items, quotas(collections.Counter(item.split for item in items), limit)))


def quotas(totals: Mapping[str, int], limit: int) -> dict[str, int]:
    """How many items of each split `limited` keeps, of the numbers that there are."""
    train = totals.get("train", 0)
    if not limit or limit >= train:
        return dict(totals)
    return {split: max(1, round(limit / train * total)) for split, total in totals.items()} | {"train": limit}


def first_of(items: Iterable[_Item], counts: Mapping[str, int]) -> Iterator[_Item]:
    """The first items of each split, so many of each."""
    left = dict(counts)
    for item in items:
        if left[item.split] > 0:
            left[item.split] -= 1
            yield item


def digest(inputs: Iterable[Input]) -> str:
    """Fingerprint of a listing: names, sizes, signatures, splits and captions."""
    sha = hashlib.sha256()
    for each in inputs:
        sha.update(repr((each.item, each.split, each.weight, each.signature, sorted(each.captions.items()))).encode())
    return sha.hexdigest()[:16]


def hashed_split(item: str, val: float) -> str:
    """Split "val" for a share `val` of all items, "train" for the others; depends on nothing but the item's name."""
    return "val" if stable_id("split", item) < val * 2**64 else "train"
