"""Text adherence on physics clips, parsed from pixels.

Are there as many balls as the caption says, of its colours, and do they set out in its directions? That is read off the
first `FIRST` frames, in which every true ball is wholly in view. A pixel has the colour whose difference from white is
nearest in direction to its own, if it differs enough from white and is near enough to any. The same measurement on true
clips is the ceiling, printed with it: some balls bounce within the measured frames.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from vdit.palette import COLOURS

FIRST = 3
"""Frames that are measured, from the first."""
INK = 64
"""Length of a pixel's difference from white, of 255 a channel, from which on it has a colour."""
NEAR = 0.95
"""Least cosine between a pixel's difference from white and a colour's; that of grey and green is 0.94."""
AREA = 6
"""Pixels of a colour that make a ball: a third less than the smallest ball in distribution."""
ANGLE = math.radians(60)
"""Most by which a direction may differ: half an octant, and as much as gravity turns the slowest thrown ball."""
SHIFT = 0.4
"""Least displacement in pixels, first to last measured frame, that has a direction."""

WAYS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
_BALL = re.compile(
    rf"\b({'|'.join(COLOURS)}) ball (?:glides|is thrown|moving) ((?:up|down)(?: and (?:left|right))?|left|right)"
)


class Said(NamedTuple):
    """A ball of a caption: its colour, and the (x, y) direction in which it sets out."""

    colour: str
    direction: tuple[int, int]


class Adherence(NamedTuple):
    """Whether a clip shows what its caption says: all of it, and each kind of thing."""

    everything: bool
    number: bool
    colours: bool
    directions: bool


def said(caption: str) -> list[Said]:
    """The balls of a caption as `data_pipelines.sources.physics.clips.caption` writes it."""
    balls = []
    for colour, words in _BALL.findall(caption.lower()):
        x, y = np.sum([WAYS[word] for word in words.split(" and ")], axis=0)
        balls.append(Said(colour, (int(x), int(y))))
    return balls


def seen(video_TYXC: np.ndarray) -> dict[str, np.ndarray]:
    """The balls of a video's first frames by colour: (x, y) of each frame, nan where it is not there.

    Args:
      video_TYXC: uint8; fewer frames than `FIRST` are all measured.
    """
    ink_TYX3 = 255.0 - video_TYXC[:FIRST].astype(np.float32)
    length_TYX = np.linalg.norm(ink_TYX3, axis=-1)
    names = list(COLOURS)
    colours_N3 = 255.0 - np.array([COLOURS[name] for name in names], np.float32)
    colours_N3 /= np.linalg.norm(colours_N3, axis=-1, keepdims=True)
    cosine_TYXN = ink_TYX3 @ colours_N3.T / np.maximum(length_TYX, 1e-6)[..., None]
    coloured_TYX = (length_TYX >= INK) & (cosine_TYXN.max(-1) >= NEAR)
    nearest_TYX = np.where(coloured_TYX, cosine_TYXN.argmax(-1), -1)
    found = {}
    for n, name in enumerate(names):
        mask_TYX = nearest_TYX == n
        area_T = mask_TYX.sum((1, 2))
        if (area_T >= AREA).sum() * 2 > len(area_T):
            y_T = (mask_TYX * (np.arange(mask_TYX.shape[1])[:, None] + 0.5)).sum((1, 2))
            x_T = (mask_TYX * (np.arange(mask_TYX.shape[2]) + 0.5)).sum((1, 2))
            place_T2 = np.stack([x_T, y_T], -1) / np.maximum(area_T, 1)[:, None]
            found[name] = np.where(area_T[:, None] >= AREA, place_T2, np.nan)
    return found


def adherence(video_TYXC: np.ndarray, caption: str) -> Adherence:
    """Compares a video with its caption.

    Raises:
      ValueError: if the caption names no ball.
    """
    wanted, found = said(caption), seen(video_TYXC)
    if not wanted:
        raise ValueError(f"the caption {caption!r} names no ball")
    number = len(found) == len(wanted)
    colours = set(found) == {ball.colour for ball in wanted}
    directions = all(ball.colour in found and _goes(found[ball.colour], ball.direction) for ball in wanted)
    return Adherence(number and colours and directions, number, colours, directions)


def _goes(place_T2: np.ndarray, direction: tuple[int, int]) -> bool:
    """Whether a ball moves within `ANGLE` of a direction, between the first and the last frame it is in."""
    there = place_T2[~np.isnan(place_T2).any(-1)]
    move = there[-1] - there[0]
    length = np.linalg.norm(move)
    if length < SHIFT:
        return False
    return bool(move @ np.array(direction) >= math.cos(ANGLE) * length * np.linalg.norm(direction))
