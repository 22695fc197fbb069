"""What a clip is like, in numbers: measured on its pixels as they are built, and stored as columns of the index."""

from __future__ import annotations

import cv2
import numpy as np

from data_pipelines.media.filters import FROZEN_DIFFERENCE, MEASURES

SHORT, LONG = 64, 256
"""Size at which motion is looked for: pixels of a frame's shorter side, and most of its longer one."""

BAR_LEVEL = 24
"""A row or column at an edge is part of a bar if no pixel of it is ever brighter (of 255)."""

CUT_DIFFERENCE = 27.0
"""Two frames are of different shots if hue, saturation and value differ by so much on average: PySceneDetect's
ContentDetector has this threshold."""

DIGITS = 4
"""Significant digits that are kept: the last ones depend on the processor."""

cv2.setNumThreads(1)  # there are as many processes as cores


def measure(video_TYXC: np.ndarray, fps: float) -> dict[str, np.float32]:
    """The measures of a clip by name.

    Args:
      video_TYXC: uint8 RGB.
      fps: frames per second.

    Returns:
      motion: mean length of the optical flow (DIS, Kroeger et al. 2016) between frames of one shot, in shorter sides
        of the frame per second; 0 for an image.
      sharpness: variance of the Laplacian of the luma (0..255), mean over the frames (Pech-Pacheco et al. 2000); it
        grows with the size at which a clip is stored.
      brightness, contrast: mean and standard deviation of a frame's luma, 0..1, mean over the frames.
      bars: share of the frame in letterbox or pillarbox bars.
      still: share of frames that repeat the one before, as `filters` has it.
      cuts: cuts inside the clip.
    """
    grey_TYX = np.stack([luma(frame) for frame in video_TYXC])
    cuts = _cuts(video_TYXC)
    levels_T = grey_TYX.reshape(len(grey_TYX), -1)
    found = {
        "motion": _motion(grey_TYX, cuts) * fps,
        "sharpness": float(np.mean([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in grey_TYX])),
        "brightness": float(levels_T.mean()) / 255,
        "contrast": float(np.mean([cv2.meanStdDev(grey)[1][0, 0] for grey in grey_TYX])) / 255,
        "bars": _bars(grey_TYX.max(0)),
        "still": _still(video_TYXC),
        "cuts": float(cuts.sum()),
    }
    return {name: rounded(found[name]) for name in MEASURES}


def rounded(value: float) -> np.float32:
    """A value to `DIGITS` digits."""
    return np.float32(f"{value:.{DIGITS}g}")


def luma(rgb_YXC: np.ndarray) -> np.ndarray:
    """Luma of a picture (ITU-R BT.601), uint8."""
    return cv2.cvtColor(rgb_YXC, cv2.COLOR_RGB2GRAY)


def _motion(grey_TYX: np.ndarray, cuts: np.ndarray) -> float:
    """Mean length of the flow from frame to frame, in shorter sides."""
    height, width = grey_TYX.shape[1:]
    short = min(height, width)
    size = tuple(min(LONG, max(SHORT, round(side * SHORT / short))) for side in (height, width))
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    sides = np.array([width / size[1], height / size[0]], np.float32) / short  # of a pixel of the scaled frames
    lengths = []
    before = None
    for number, grey in enumerate(grey_TYX):
        after = cv2.resize(grey, size[::-1], interpolation=cv2.INTER_AREA)
        if before is not None and not cuts[number - 1]:
            lengths.append(
                float(
                    np.linalg.norm(flow.calc(before, after, np.zeros((*size, 2), np.float32)) * sides, axis=-1).mean()
                )
            )
        before = after
    return float(np.mean(lengths)) if lengths else 0.0


def _cuts(video_TYXC: np.ndarray) -> np.ndarray:
    """Whether a cut lies between each frame and the next, (T - 1,)."""
    found, before = [], None
    for frame in video_TYXC:
        after = cv2.cvtColor(frame, cv2.COLOR_RGB2HSV)
        if before is not None:
            found.append(cv2.norm(before, after, cv2.NORM_L1) / after.size >= CUT_DIFFERENCE)
        before = after
    return np.array(found, bool)


def _still(video_TYXC: np.ndarray) -> float:
    if len(video_TYXC) == 1:
        return 0.0
    pairs = zip(video_TYXC[:-1], video_TYXC[1:], strict=True)
    return float(np.mean([cv2.norm(a, b, cv2.NORM_L1) / a.size <= FROZEN_DIFFERENCE for a, b in pairs]))


def _bars(brightest_YX: np.ndarray) -> float:
    """Share of the picture in dark rows and columns at its edges; of a black one all."""
    lit_YX = brightest_YX > BAR_LEVEL
    rows, columns = np.flatnonzero(lit_YX.any(1)), np.flatnonzero(lit_YX.any(0))
    if not len(rows):
        return 1.0
    inside = (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
    return 1 - float(inside) / lit_YX.size
