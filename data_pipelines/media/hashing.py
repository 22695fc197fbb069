"""A hash of what a clip looks like: near duplicates, as recompressed or rescaled ones, differ in few of its bits."""

from __future__ import annotations

import imagehash
import numpy as np
from PIL import Image

SIDE = 16
"""Coefficients of a frame's cosine transform, in each direction."""

PARTS = 3
"""Parts of equal length of a clip; each is averaged to one picture, which a shift by a few frames hardly changes."""

BYTES = PARTS * SIDE * SIDE // 8
"""Of a clip's hash."""


def clip_hash(video_TYXC: np.ndarray) -> np.ndarray:
    """(BYTES,) uint8 of uint8 RGB: whether each of the lowest coefficients of its parts is above their median.

    The mean pictures of the parts are hashed by `imagehash.phash`, which scales them to 64 x 64 first.
    """
    ends = [-(-len(video_TYXC) * part // PARTS) for part in range(PARTS + 1)]
    hashes = []
    for start, end in zip(ends[:-1], ends[1:], strict=True):
        start = min(start, len(video_TYXC) - 1)
        mean_YXC = video_TYXC[start : max(end, start + 1)].mean(0, dtype=np.float32)
        picture = Image.fromarray(np.rint(mean_YXC).astype(np.uint8))
        hashes.append(np.packbits(imagehash.phash(picture, hash_size=SIDE).hash.ravel()))
    return np.concatenate(hashes)


def mirrored(hash_NB: np.ndarray) -> np.ndarray:
    """The hashes of the same clips mirrored left to right: odd coefficients across change their sign."""
    return hash_NB ^ np.packbits(np.tile(np.arange(SIDE) % 2, PARTS * SIDE).astype(bool))
