"""How a long video drifts over time: colour, sharpness and number of balls, second by second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vdit.evaluation.balls.adherence import seen
from vdit.evaluation.intervals import bootstrap_mean


def colour(video_TYXC: np.ndarray) -> np.ndarray:
    """How far each uint8 frame is from white on average, over channels too, 0..255: it grows if colours run away."""
    return (255.0 - video_TYXC).mean((1, 2, 3))


def sharpness(video_TYXC: np.ndarray) -> np.ndarray:
    """Steepest hundredth of the differences between neighbouring pixels of each uint8 frame (its 99th percentile)."""
    grey = video_TYXC.astype(np.float32).mean(-1)
    across, down = np.abs(np.diff(grey, axis=2)), np.abs(np.diff(grey, axis=1))
    both = np.concatenate([across.reshape(len(grey), -1), down.reshape(len(grey), -1)], 1)
    return np.quantile(both, 0.99, axis=1)


def balls(video_TYXC: np.ndarray) -> np.ndarray:
    """Colours of which each frame holds enough for a ball."""
    return np.array([len(seen(frame[None])) for frame in video_TYXC], float)


MEASURES = {"ink": colour, "sharpness": sharpness, "balls": balls}


def level(videos: Sequence[np.ndarray]) -> dict[str, float]:
    """The mean of each measure over all frames of videos of any lengths."""
    return {
        name: float(np.mean(np.concatenate([measure(video) for video in videos]))) for name, measure in MEASURES.items()
    }


def drift(videos: Sequence[np.ndarray], fps: float) -> dict[str, Any]:
    """Each measure's mean over every second of videos of one length, with its 95% interval over the videos.

    Returns:
      "second": when each second ends; by measure "mean", "low" and "high" of each second.
    """
    edges = np.arange(0, len(videos[0]) + 1e-6, fps).round().astype(int)
    out: dict[str, Any] = {"second": (edges[1:] / fps).tolist()}
    for name, measure in MEASURES.items():
        values_ET = np.array([measure(video) for video in videos])
        means = [bootstrap_mean(values_ET[:, a:b].mean(1)) for a, b in zip(edges[:-1], edges[1:], strict=True)]
        out[name] = {
            "mean": [mean.mean for mean in means],
            "low": [mean.interval[0] for mean in means],
            "high": [mean.interval[1] for mean in means],
        }
    return out
