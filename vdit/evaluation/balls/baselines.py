"""What a velocity error is worth: a ball that stays where it was last given, and one that goes straight on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vdit.evaluation.balls.physics import ClipError, ball_positions, clip_error, true_motion, without_walls


def frozen_error(video_TYXC: np.ndarray, truth: Mapping[str, Any], given: int = 5) -> ClipError:
    """The error of balls that stop in the last given frame; arguments as those of `physics.velocity_error`."""
    true = true_motion(truth, video_TYXC.shape, given)
    return clip_error(np.zeros_like(true.velocity_KB2), np.ones_like(true.counts_KB), true)


def straight_error(video_TYXC: np.ndarray, truth: Mapping[str, Any], given: int = 5) -> ClipError:
    """The error of balls that keep the velocity between the last two given frames.

    It is right about a uniform motion, up to the error of positions from pixels, and knows neither gravity nor walls
    nor other balls.
    """
    true = true_motion(truth, video_TYXC.shape, given)
    seen_TB2, found_TB = ball_positions(
        without_walls(video_TYXC[given - 2 : given], true.border), true.colours_B3, true.radii_B * true.scale
    )
    velocity_B2 = (seen_TB2[-1] - seen_TB2[-2]) * true.fps / true.scale
    found_KB = np.broadcast_to(found_TB[-2:].all(0), true.counts_KB.shape)
    return clip_error(np.broadcast_to(velocity_B2, true.velocity_KB2.shape), found_KB, true)


BASELINES: dict[str, Callable[..., ClipError]] = {"frozen": frozen_error, "straight": straight_error}
