"""Finding cuts while frames stream by (PySceneDetect)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from vdit.errors import UserError

LOOK_AT = 160
"""Pixels of the longer side at which cuts are looked for."""


def require_detector() -> None:
    """Raises UserError if PySceneDetect is not installed."""
    try:
        import scenedetect  # noqa: F401
    except ImportError as error:
        raise UserError(f"--shots needs PySceneDetect ({error}): pip install 'vdit[shots]'") from error


class ShotDetector:
    """Says of each frame of a video whether a shot begins with it.

    Every cut counts at once: the detector's own filters of short shots would need later frames, or leave a cut inside.

    Args:
      fps: frames per second of what it is shown.
    """

    def __init__(self, fps: float) -> None:
        from scenedetect import FrameTimecode
        from scenedetect.detectors import ContentDetector

        self._detector: Any = ContentDetector(min_scene_len=0)
        self._first = FrameTimecode(0, Fraction(fps).limit_denominator(1001))
        self._number = 0

    def begins(self, rgb_YXC: np.ndarray) -> bool:
        """Whether the picture cuts before this frame. Called once for every frame, in order."""
        stride = max(1, max(rgb_YXC.shape[:2]) // LOOK_AT)
        bgr = np.ascontiguousarray(rgb_YXC[::stride, ::stride, ::-1])
        cuts = self._detector.process_frame(self._first + self._number, bgr)
        self._number += 1
        return bool(cuts)
