"""Does a ball that passed behind a wall come out where and when it should? Measured from pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vdit.evaluation.balls.physics import RIM, ball_positions
from vdit.evaluation.balls.physics_task import continue_clips, physics_clips
from vdit.evaluation.clips import Clips
from vdit.evaluation.intervals import bootstrap_mean
from vdit.generation import Generator, LatentGenerator

NEAR = 1.0
"""Units from the true place within which a ball is where it should be; balls have radii of 0.7 to 1."""


def after_wall(truth: dict[str, Any], frames: int, width: int, height: int) -> np.ndarray:
    """Frames (T,) in which the true ball is wholly in view and has passed its wall, which need not be drawn.

    Without a wall these are the frames of the second half in which it is in view.
    """
    scale = float(truth["pixels_per_unit"])
    place_T2 = np.asarray(truth["positions"], np.float32).reshape(frames, 2) * scale
    reach = float(np.asarray(truth["radii"]).reshape(-1)[0]) * scale + RIM
    in_view_T = ((place_T2 >= reach) & (place_T2 <= np.array([width, height]) - reach)).all(-1)
    wall = np.asarray(truth["wall"]) * scale
    if not wall.size:
        return in_view_T & (np.arange(frames) >= frames // 2)
    to_right = place_T2[-1, 0] > place_T2[0, 0]
    passed_T = place_T2[:, 0] - reach >= wall[1] if to_right else place_T2[:, 0] + reach <= wall[0]
    return in_view_T & passed_T


def clip_score(video_TYXC: np.ndarray, truth: dict[str, Any]) -> tuple[float, float]:
    """Shares of the frames after the wall in which the ball is found at all, and found within `NEAR` of its place."""
    frames, height, width = video_TYXC.shape[:3]
    counts_T = after_wall(truth, frames, width, height)
    scale = float(truth["pixels_per_unit"])
    radii = np.asarray(truth["radii"], np.float32).reshape(-1) * scale
    seen_T12, found_T1 = ball_positions(video_TYXC, np.asarray(truth["colours"]).reshape(-1, 3), radii)
    true_T2 = np.asarray(truth["positions"], np.float32).reshape(frames, 2)
    near_T = np.linalg.norm(seen_T12[:, 0] / scale - true_T2, axis=-1) <= NEAR
    found_T = found_T1[:, 0]
    return float(found_T[counts_T].mean()), float((found_T & near_T)[counts_T].mean())


def permanence(
    videos: Sequence[np.ndarray], dataset: Clips, split: str, numbers: Sequence[int]
) -> dict[str, dict[str, Any]]:
    """Mean scores of clips with a wall and without, with 95% intervals over clips.

    Returns:
      {"wall" and "open": {"came_out": {"mean", "interval"}, "in_place": ...}}; a kind without clips is left out.
    """
    rows: dict[str, list[tuple[float, float]]] = {"wall": [], "open": []}
    for video, i in zip(videos, numbers, strict=True):
        truth = dataset.example(split, i)
        rows["wall" if np.asarray(truth["wall"]).size else "open"].append(clip_score(video, truth))
    out = {}
    for kind, scores in rows.items():
        if scores:
            means = [bootstrap_mean(np.array(values)) for values in zip(*scores, strict=True)]
            out[kind] = {
                name: {"mean": mean.mean, "interval": list(mean.interval)}
                for name, mean in zip(("came_out", "in_place"), means, strict=True)
            }
    return out


def permanence_of(
    generator: Generator | LatentGenerator, dataset: Clips, split: str, count: int
) -> dict[str, dict[str, Any]]:
    """Generates all but the first two groups of the first `count` clips, and scores them."""
    numbers = physics_clips(dataset, split, count)
    return permanence(continue_clips(generator, dataset, split, numbers), dataset, split, numbers)
