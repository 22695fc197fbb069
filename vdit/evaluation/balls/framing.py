"""Is the subject in the frame? Of generated balls by their colour; of data by the boxes of its subjects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from vdit.evaluation.balls.adherence import said, seen
from vdit.evaluation.balls.physics import unmix
from vdit.palette import COLOURS

INSIDE = 0.5
"""Coverage from which on a pixel belongs to a ball."""


def subject_in_frame(video_TYXC: np.ndarray, caption: str) -> float:
    """Share of a caption's balls that the first frames show whole: there, and not cut off by the frame's edge.

    Args:
      video_TYXC: uint8.
      caption: as of physics clips; its balls are found by their colours.

    Raises:
      ValueError: if it names no ball.
    """
    wanted = said(caption)
    if not wanted:
        raise ValueError(f"the caption {caption!r} names no ball")
    found = seen(video_TYXC)
    whole = 0
    for ball in wanted:
        if ball.colour in found:
            cover_YX = unmix(video_TYXC[:1], np.array([COLOURS[ball.colour]]))[0, 0]
            edge = np.concatenate([cover_YX[0], cover_YX[-1], cover_YX[:, 0], cover_YX[:, -1]])
            whole += bool((cover_YX >= INSIDE).any() and not (edge >= INSIDE).any())
    return whole / len(wanted)


def box_kept(box: Sequence[float], aspect: float) -> float:
    """Share of a subject's box (x0, y0, x1, y1 in 0..1) that a square crop out of the middle keeps.

    Args:
      box: of the subject.
      aspect: width over height of the frame.
    """
    x0, y0, x1, y1 = box
    wide, tall = min(1.0, 1 / aspect), min(1.0, aspect)  # of the crop, as shares of the frame
    across = max(0.0, min(x1, 0.5 + wide / 2) - max(x0, 0.5 - wide / 2)) / (x1 - x0)
    down = max(0.0, min(y1, 0.5 + tall / 2) - max(y0, 0.5 - tall / 2)) / (y1 - y0)
    return across * down


def ball_boxes_kept(positions_TB2: np.ndarray, radii_B: np.ndarray, size: tuple[float, float]) -> Iterable[float]:
    """`box_kept` of every ball in the first frame of a clip of (width, height) in the units of positions and radii."""
    width, height = size
    for (x, y), radius in zip(positions_TB2[0], radii_B, strict=True):
        box = ((x - radius) / width, (y - radius) / height, (x + radius) / width, (y + radius) / height)
        yield box_kept(box, width / height)
