"""Whether samples look like what was asked for: which true clips are nearest to them, by features of their frames."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def similarities(a: Sequence[np.ndarray], b: Sequence[np.ndarray]) -> np.ndarray:
    """Cosines between clips, (len(a), len(b)): of the means of their frames' features, about the mean of all of b.

    Args:
      a, b: features_NF of the frames of each clip.
    """
    means_a, means_b = (np.stack([clip.mean(0, dtype=np.float64) for clip in clips]) for clips in (a, b))
    centre = means_b.mean(0)
    unit_a, unit_b = (
        x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in _about(centre, means_a, means_b)
    )
    return unit_a @ unit_b.T


def ranks(similarities_AB: np.ndarray, own_A: np.ndarray) -> np.ndarray:
    """How many clips are nearer to each sample than its own, own_A; 0 = its own is the nearest, ties count half."""
    own = np.take_along_axis(similarities_AB, own_A[:, None], 1)
    return (similarities_AB > own).sum(1) + ((similarities_AB == own).sum(1) - 1) / 2


def found_alike(samples_AB: np.ndarray, true_AB: np.ndarray, count: int) -> np.ndarray:
    """Whether the clip nearest to each sample is among the `count` that are nearest to the true clip."""
    nearest = samples_AB.argmax(1)
    alike = np.argsort(-true_AB, axis=1, kind="stable")[:, :count]
    return (alike == nearest[:, None]).any(1)


def _about(centre: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array - centre for array in arrays]
