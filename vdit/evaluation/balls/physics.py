"""Velocity error of generated physics clips, measured from pixels.

As in Kang et al. (ICML 2025): a mean over pixels tells where a ball is, finite differences its velocity, and the error
is the mean of |v - v_hat| over the frames in which the ball is in view. What this code decides:

* Balls are distinguished by colour: each pixel's difference from white is unmixed into the clip's ball colours.
* v and v_hat are both *finite differences* between neighbouring frames, v of the true positions. So gravity adds no
  offset, and an interval in which a ball bounces or collides is compared with what the true ball did in it: no interval
  is skipped because of an event.
* An interval counts for a ball if the true ball is wholly in view, soft rim included, at both of its frames and its
  later frame was generated (the first generated frame is thus measured against the last given one).
* A ball that is not found at either end of an interval counts an error of max(2 |v|, `LOST`), and no interval
  counts more than that. 2 |v| is the error of moving the opposite way, so vanishing is never the better answer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

RIM = 1.0
"""Width of the soft rim outside a ball's radius, pixels."""
NOISE = 0.01
"""Coverage below this (about 2 of 255 grey levels) is background."""
EXPLAINED = 0.75
"""Least share of a pixel's squared difference from white that mixtures of the balls' colours must explain."""
FOUND = 0.25
"""Share of a ball's area that must have its colour for it to be found."""
LOST = 2.0
"""Least error of a lost ball, units/s (for slow balls)."""


@dataclasses.dataclass(frozen=True)
class ClipError:
    """What one clip says.

    Attributes:
      error: mean over balls and intervals, units/s; nan if none counts.
      lost: share of the intervals in which the ball was not found.
      intervals: how many (ball, interval) pairs count.
      error_KB: (intervals K = T-1, balls), nan where it does not count.
    """

    error: float
    lost: float
    intervals: int
    error_KB: np.ndarray


def unmix(video_TYXC: np.ndarray, colours_B3: np.ndarray) -> np.ndarray:
    """The share of every pixel that has each ball's colour, by least squares between white and the colours.

    Pixels of which these colours explain too little (`EXPLAINED`) are of another colour and have no share.

    Args:
      video_TYXC: uint8, or float on the same scale of 0..255.
      colours_B3: the balls' colours, 0..255, at most three and different.

    Returns:
      float32 (balls, T, Y, X) in 0..1.
    """
    mixing_B3 = 255.0 - np.asarray(colours_B3, np.float64)
    unmixing_3B = np.linalg.pinv(mixing_B3).astype(np.float32)
    ink_TYXC = 255 - np.asarray(video_TYXC, np.float32)
    cover = ink_TYXC @ unmixing_3B
    explained = ((cover @ mixing_B3.astype(np.float32)) ** 2).sum(-1) >= EXPLAINED * (ink_TYXC**2).sum(-1)
    cover = np.where((cover < NOISE) | ~explained[..., None], 0, np.minimum(cover, 1))
    return np.moveaxis(np.nan_to_num(cover), -1, 0)


def ball_positions(
    video_TYXC: np.ndarray, colours_B3: np.ndarray, radii_B: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Finds every ball in every frame by its colour.

    The densest square of the ball's size gives the place roughly; pixel means in a disc around it refine it. So noise
    and other things of the same colour elsewhere in the frame do not pull on the mean.

    Args:
      video_TYXC: see `unmix`.
      colours_B3: the balls' colours.
      radii_B: the balls' radii in pixels.

    Returns:
      positions float32 (T, balls, 2): (x, y) in pixels, the centre of the top left pixel at (.5, .5);
      found bool (T, balls): whether enough of the colour is there, over and above what surrounds it.
    """
    pairs = [_follow(c, float(r)) for c, r in zip(unmix(video_TYXC, colours_B3), radii_B, strict=True)]
    return np.stack([p for p, _ in pairs], 1), np.stack([f for _, f in pairs], 1)


def _follow(cover_TYX: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Position (T, 2) and found (T,) of one ball."""
    _, height, width = cover_TYX.shape
    reach = radius + RIM + 0.5
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    centre_T2 = _densest_square(cover_TYX, round(reach))
    for _ in range(4):
        distance2 = _distance2(centre_T2, y, x)
        near = cover_TYX * (distance2 <= reach**2)
        mass = near.sum((1, 2))
        mean = np.stack([near.sum(1) @ x, near.sum(2) @ y], -1) / np.maximum(mass, 1e-6)[:, None]
        centre_T2 = np.where(mass[:, None] > 0, mean, centre_T2).astype(np.float32)
    inside, ring = distance2 <= reach**2, (distance2 > reach**2) & (distance2 <= (reach + 2) ** 2)
    around = (cover_TYX * ring).sum((1, 2)) / np.maximum(ring.sum((1, 2)), 1)
    found = mass - around * inside.sum((1, 2)) >= FOUND * np.pi * radius**2
    return centre_T2, found


def _distance2(centre_T2: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Squared distance (T, Y, X) of every pixel from a centre."""
    return (y - centre_T2[:, 1:])[:, :, None] ** 2 + (x - centre_T2[:, :1])[:, None, :] ** 2


def _densest_square(cover_TYX: np.ndarray, half: int) -> np.ndarray:
    """Centre (T, 2) of the square of 2 half + 1 pixels a side with the most coverage, by summed areas."""
    padded = np.pad(cover_TYX, ((0, 0), (half + 1, half), (half + 1, half)))
    area = padded.cumsum(1).cumsum(2)
    side = 2 * half + 1
    sums = area[:, side:, side:] - area[:, :-side, side:] - area[:, side:, :-side] + area[:, :-side, :-side]
    best = sums.reshape(len(sums), -1).argmax(-1)
    return np.stack([best % sums.shape[2], best // sums.shape[2]], -1).astype(np.float32) + 0.5


def velocity_error(video_TYXC: np.ndarray, truth: Mapping[str, Any], given: int = 5) -> ClipError:
    """Compares how the balls move in a video with how they truly moved; the rules are at the top of this file.

    Args:
      video_TYXC: uint8, or float on the same scale of 0..255.
      truth: "colours" (balls, 3), "radii" (balls,), "positions" (T, balls, 2) in units, "pixels_per_unit" and "fps", as
        made by `data_pipelines.sources.physics.clips.PhysicsClip.truth`; arrays may be flat, as in a data set. "border"
        (0 if missing) is the width in pixels of walls drawn along the edges, which no ball reaches.
      given: frames at the start that were given, not generated.

    Raises:
      ValueError: if the video and the truth differ in length.
    """
    true = true_motion(truth, video_TYXC.shape, given)
    seen_TB2, found_TB = ball_positions(
        without_walls(video_TYXC, true.border), true.colours_B3, true.radii_B * true.scale
    )
    seen_KB2 = np.diff(seen_TB2, axis=0) * true.fps / true.scale
    return clip_error(seen_KB2, found_TB[1:] & found_TB[:-1], true)


@dataclasses.dataclass(frozen=True)
class TrueMotion:
    """What a clip's balls truly did, K = T - 1 intervals.

    Attributes:
      velocity_KB2: units/s, finite differences.
      counts_KB: which intervals count, see the top of this file.
      colours_B3, radii_B: of the balls; radii in units.
      scale, fps: pixels per unit, frames per second.
      border: pixels of drawn wall along every edge.
    """

    velocity_KB2: np.ndarray
    counts_KB: np.ndarray
    colours_B3: np.ndarray
    radii_B: np.ndarray
    scale: float
    fps: float
    border: int


def true_motion(truth: Mapping[str, Any], shape: tuple[int, ...], given: int) -> TrueMotion:
    """The truth about a clip of `shape` (T, Y, X, C), of which `given` frames are given.

    Raises:
      ValueError: if the clip and the truth differ in length.
    """
    scale, fps = float(truth["pixels_per_unit"]), float(truth["fps"])
    radii_B = np.asarray(truth["radii"], np.float32)
    place_TB2 = np.asarray(truth["positions"], np.float32).reshape(-1, len(radii_B), 2) * scale
    if len(place_TB2) != shape[0]:
        raise ValueError(f"the video has {shape[0]} frames, the truth {len(place_TB2)}")
    reach = (radii_B * scale + RIM)[:, None] - 1e-3  # a ball may touch the wall exactly
    in_view_TB = ((place_TB2 >= reach) & (place_TB2 <= np.array([shape[2], shape[1]]) - reach)).all(-1)
    counts_KB = in_view_TB[1:] & in_view_TB[:-1]
    counts_KB[: max(given - 1, 0)] = False
    velocity_KB2 = np.diff(place_TB2, axis=0) * fps / scale
    colours_B3 = np.asarray(truth["colours"]).reshape(-1, 3)
    return TrueMotion(velocity_KB2, counts_KB, colours_B3, radii_B, scale, fps, int(truth.get("border", 0)))


def clip_error(velocity_KB2: np.ndarray, found_KB: np.ndarray, true: TrueMotion) -> ClipError:
    """The error of velocities (units/s) where balls were found, by the rules at the top of this file."""
    worst_KB = np.maximum(2 * np.linalg.norm(true.velocity_KB2, axis=-1), LOST)
    away_KB = np.linalg.norm(velocity_KB2 - true.velocity_KB2, axis=-1)
    error_KB = np.where(found_KB, np.minimum(away_KB, worst_KB), worst_KB)
    counted = int(true.counts_KB.sum())
    return ClipError(
        error=float(error_KB[true.counts_KB].mean()) if counted else float("nan"),
        lost=float((~found_KB[true.counts_KB]).mean()) if counted else float("nan"),
        intervals=counted,
        error_KB=np.where(true.counts_KB, error_KB, np.nan),
    )


def without_walls(video_TYXC: np.ndarray, border: int) -> np.ndarray:
    """The video with `border` pixels along every edge white, as walls are no ball's colour."""
    if not border:
        return video_TYXC
    inside = np.full_like(video_TYXC, 255)
    inside[:, border:-border, border:-border] = video_TYXC[:, border:-border, border:-border]
    return inside
