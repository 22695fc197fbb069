"""An embedding of each clip by EfficientNet-Lite0 (ImageNet): clips of like content lie near each other.

Features of three frames, of the parts that `hashing` hashes, are averaged, brought to `WIDTH` numbers by a fixed random
projection, which keeps angles (Johnson & Lindenstrauss 1984), and scaled to length 1.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from data_pipelines.media.hashing import PARTS

WIDTH = 256
DTYPE = np.dtype(np.float16)

SIDE = 224
"""Pixels of the square that the network sees."""


def embedded_frames(video_TYXC: np.ndarray) -> np.ndarray:
    """The frames that are embedded, (PARTS, SIDE, SIDE, 3) uint8: those in the middle of a clip's parts."""
    places = (len(video_TYXC) * (2 * np.arange(PARTS) + 1)) // (2 * PARTS)
    size = (SIDE, SIDE)
    return np.stack([cv2.resize(video_TYXC[place], size, interpolation=cv2.INTER_AREA) for place in places])


class Embedder:
    """Embeds clips on an accelerator of this process; loads its weights when they are first needed."""

    def __call__(self, clips: Sequence[np.ndarray]) -> np.ndarray:
        """embedding_NE of clips that are given as their `embedded_frames`; each depends on its own frames alone.

        Raises:
          UserError: if the weights are not in the cache and cannot be fetched.
        """
        return np.stack([self._embedding(frames_PYXC) for frames_PYXC in clips])

    def _embedding(self, frames_PYXC: np.ndarray) -> np.ndarray:
        """Of one clip, so that no product's order of summing depends on the others."""
        features_F = self._features(frames_PYXC).mean(0)
        embedding_E = features_F @ _projection(len(features_F))
        return (embedding_E / np.linalg.norm(embedding_E)).astype(DTYPE)

    @functools.cached_property
    def _features(self) -> Callable[[np.ndarray], np.ndarray]:
        from vdit.models.features.efficientnet import load_features  # here, as a build without it does without JAX

        return load_features(batch=PARTS)


@functools.cache
def _projection(features: int) -> np.ndarray:
    rng = np.random.Generator(np.random.Philox(key=0))
    return rng.standard_normal((features, WIDTH), np.float32) / np.sqrt(np.float32(WIDTH))
