"""What is wrong with generated pictures whatever they show: borders of blocks, and frames that do not move."""

from __future__ import annotations

import numpy as np


def blockiness(video_TYXC: np.ndarray, height: int, width: int) -> float:
    """How much more neighbouring pixels differ across the borders of blocks than inside of them.

    The mean absolute difference across borders over that inside, both axes together; about 1 where nothing shows.

    Args:
      video_TYXC: uint8, larger than a block along one side at least.
      height, width: of a block, in pixels.
    """
    border, inside = [], []
    for axis, period in ((1, height), (2, width)):
        step = np.moveaxis(np.abs(np.diff(video_TYXC.astype(np.float32), axis=axis)), axis, 0)
        across = np.arange(1, len(step) + 1) % period == 0
        border.append(step[across].ravel())
        inside.append(step[~across].ravel())
    return float(np.concatenate(border).mean() / np.maximum(np.concatenate(inside).mean(), 1e-6))


def motion(video_TYXC: np.ndarray) -> float:
    """Mean absolute difference between a frame and the next, in levels of 0..255."""
    return float(np.abs(np.diff(video_TYXC.astype(np.float32), axis=0)).mean())
