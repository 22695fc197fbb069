"""The physics task: two groups given, the rest generated, velocities measured against the ground truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.evaluation.balls.physics import velocity_error
from vdit.evaluation.clips import Clips
from vdit.evaluation.intervals import bootstrap_mean
from vdit.generation import Generator, LatentGenerator, Request

GIVEN_GROUPS = 2
STEPS = 12
"""Euler steps of the generated clips: more do not change the error by more than its interval."""


def physics_clips(dataset: Clips, split: str, count: int) -> list[int]:
    """The first `count` clips long enough to leave something to generate."""
    long = np.flatnonzero(dataset.frames(split) > dataset.patch.frames(GIVEN_GROUPS))
    return [int(i) for i in long[:count]]


def has_truth(dataset: Clips) -> bool:
    """Whether the data set's clips are balls with known velocities, all of them in view: none behind a wall."""
    known = dataset.example(dataset.splits[0], 0)
    return "velocities" in known and "wall" not in known


def continue_clips(
    generator: Generator | LatentGenerator, dataset: Clips, split: str, numbers: Sequence[int], seed: int = 0
) -> list[np.ndarray]:
    """The clips with all but their first two groups generated, video_TYXC uint8."""
    requests = []
    for i in numbers:
        clip = dataset.read_clip(split, i, caption=next(iter(dataset.meta["captions"]), None))
        frames, height, width, _ = clip.video_TYXC.shape
        given = clip.video_TYXC[: dataset.patch.frames(GIVEN_GROUPS)]
        requests.append(Request(clip.text_ME, frames, height, width, clip.fps, seed ^ clip.id, given))
    return generator.generate(requests, steps=STEPS)


def score(videos: Sequence[np.ndarray], dataset: Clips, split: str, numbers: Sequence[int]) -> dict[str, Any]:
    """Mean velocity error in units/s with its 95% interval over clips, and the share of balls that were lost."""
    errors = []
    lost = []
    for video_TYXC, i in zip(videos, numbers, strict=True):
        result = velocity_error(video_TYXC, dataset.example(split, i), dataset.patch.frames(GIVEN_GROUPS))
        if np.isfinite(result.error):
            errors.append(result.error)
            lost.append(result.lost)
    if not errors:
        raise UserError(f"no clip of split {split} of {dataset.path} has a ball in view after the given frames")
    mean = bootstrap_mean(np.array(errors))
    return {"mean": mean.mean, "interval": list(mean.interval), "lost": float(np.mean(lost)), "clips": len(errors)}


def physics_errors(generator: Generator | LatentGenerator, dataset: Clips, split: str, count: int) -> dict[str, Any]:
    """Generates and scores the first `count` clips of a split."""
    numbers = physics_clips(dataset, split, count)
    return score(continue_clips(generator, dataset, split, numbers), dataset, split, numbers)


def physics_floor(dataset: Clips, split: str, count: int) -> dict[str, Any]:
    """The same measurement on the true clips: what a perfect model would score."""
    numbers = physics_clips(dataset, split, count)
    return score([dataset.read_clip(split, i).video_TYXC for i in numbers], dataset, split, numbers)
