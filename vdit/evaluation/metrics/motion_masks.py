"""Where and when something moves, against the true video: the four measures of Physics-IQ (Motamed et al. 2025).

A mask says which pixels of a frame move: those whose grey value, after a Gaussian blur of 5 x 5, differs by more than
`THRESHOLD` from a running mean of the frames so far (weight `WEIGHT` of the newest), after a morphological opening and
closing with 5 x 5 ones. Frames and masks are then compared at a quarter of the true video's size:

* spatial: intersection over union (IoU) of where anything ever moves, time collapsed by maximum;
* spatiotemporal: the mean over frames of the IoU of their masks;
* weighted_spatial: sum of minima over sum of maxima of how much of the time each pixel moves;
* mse: mean squared difference of the pixels, on the scale 0 to 1.

An IoU of two empty masks is 1. Unlike the published code, masks do not pass through a lossy video file in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from vdit.evaluation.intervals import bootstrap_mean

MEASURES = ("spatial", "spatiotemporal", "weighted_spatial", "mse")
WEIGHT, THRESHOLD = 0.3, 10
KERNEL = 5
"""Pixels a side of the blur and of the opening and closing."""
REDUCTION = 4
"""Frames and masks are compared at one part in so many of the size."""
SMALLEST = 128
"""Pixels to which the shorter side of a small clip of our own is enlarged at least."""


class Motion(NamedTuple):
    """A video as it is compared.

    Attributes:
      frames_TYXC: RGB in [0, 1], reduced.
      masks_TYX: whether a pixel moves; nothing does in the first frame.
    """

    frames_TYXC: np.ndarray
    masks_TYX: np.ndarray


def motion(video: Iterable[np.ndarray], size: tuple[int, int]) -> Motion:
    """The masks and reduced frames of a video.

    Args:
      video: its frames_YXC in order, uint8; they are taken one after another, so that a long video need not fit.
      size: height and width to reduce to.
    """
    height, width = size
    ones = np.ones((KERNEL, KERNEL), np.uint8)
    mean_YX: np.ndarray | None = None
    frames, masks = [], []
    for frame_YXC in video:
        frames.append(cv2.resize(frame_YXC, (width, height)).astype(np.float32) / 255)
        grey_YX = cv2.GaussianBlur(cv2.cvtColor(frame_YXC, cv2.COLOR_RGB2GRAY), (KERNEL, KERNEL), 0)
        if mean_YX is None:
            mean_YX = grey_YX.astype(np.float64)
            masks.append(np.zeros(size, bool))
            continue
        cv2.accumulateWeighted(grey_YX, mean_YX, WEIGHT)
        difference_YX = cv2.absdiff(grey_YX, cv2.convertScaleAbs(mean_YX))
        moves_YX = np.where(difference_YX > THRESHOLD, 255, 0).astype(np.uint8)
        for operation in (cv2.MORPH_OPEN, cv2.MORPH_CLOSE):
            moves_YX = cv2.morphologyEx(moves_YX, operation, ones).astype(np.uint8)
        masks.append(cv2.resize(moves_YX, (width, height)) > 127)
    return Motion(np.stack(frames), np.stack(masks))


def compare(made: Motion, true: Motion) -> dict[str, float]:
    """The four measures of a video against the true one of as many frames and the same reduced size."""
    a_TYX, b_TYX = made.masks_TYX, true.masks_TYX
    share_a_YX, share_b_YX = a_TYX.mean(0), b_TYX.mean(0)
    union = np.maximum(share_a_YX, share_b_YX).sum()
    return {
        "spatial": _iou(a_TYX.max(0), b_TYX.max(0)),
        "spatiotemporal": float(np.mean([_iou(a_YX, b_YX) for a_YX, b_YX in zip(a_TYX, b_TYX, strict=True)])),
        "weighted_spatial": float(np.minimum(share_a_YX, share_b_YX).sum() / union) if union else 1.0,
        "mse": float(np.mean((made.frames_TYXC - true.frames_TYXC) ** 2)),
    }


def _iou(a_YX: np.ndarray, b_YX: np.ndarray) -> float:
    union = np.logical_or(a_YX, b_YX).sum()
    return float(np.logical_and(a_YX, b_YX).sum() / union) if union else 1.0


def summary(values_SE: Sequence[Sequence[dict[str, float]]]) -> dict[str, Any]:
    """Each measure over videos and seeds.

    Args:
      values_SE: of every seed the measures of each video.

    Returns:
      By measure the mean, its 95% interval over videos (seeds averaged), the mean of each seed, and their standard
      deviation ("spread"), which only several seeds have.
    """
    out: dict[str, Any] = {}
    for name in MEASURES:
        found_SE = np.array([[values[name] for values in of_seed] for of_seed in values_SE])
        mean, seeds = bootstrap_mean(found_SE.mean(0)), found_SE.mean(1)
        out[name] = {"mean": mean.mean, "interval": list(mean.interval), "seeds": seeds.tolist()}
        if len(seeds) > 1:
            out[name]["spread"] = float(seeds.std(ddof=1))
    return out


def physics_iq(found: dict[str, float], between_takes: dict[str, float]) -> float:
    """The Physics-IQ score in per cent, from 0 to 100.

    The mean of the three IoUs, each over that between two takes of the same real scene, less by how much the squared
    error is beyond that between the takes. 100 is as near to the first take as the second is.
    """
    ratios = [found[name] / between_takes[name] for name in MEASURES if name != "mse"]
    score = float(np.mean(ratios)) - (found["mse"] - between_takes["mse"])
    return 100 * min(max(score, 0.0), 1.0)


def enlargement(height: int, width: int) -> int:
    """The whole number by which small clips are enlarged, so that the blur is narrow beside what moves."""
    return max(1, -(-SMALLEST // min(height, width)))


def motion_of_clip(video_TYXC: np.ndarray) -> Motion:
    """`motion` of a clip of our own, which may be much smaller than the videos that the measures were made for."""
    _, height, width, _ = video_TYXC.shape
    factor = enlargement(height, width)
    tall, wide = height * factor, width * factor
    enlarged = (cv2.resize(frame_YXC, (wide, tall), interpolation=cv2.INTER_LINEAR) for frame_YXC in video_TYXC)
    return motion(enlarged, (tall // REDUCTION, wide // REDUCTION))
