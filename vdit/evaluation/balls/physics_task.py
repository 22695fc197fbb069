"""The physics task: two groups given, the rest generated, velocities measured against the ground truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.evaluation.balls.baselines import BASELINES
from vdit.evaluation.balls.physics import ClipError, velocity_error
from vdit.evaluation.clips import Clips
from vdit.evaluation.intervals import bootstrap_mean
from vdit.generation import Generator, LatentGenerator, Request

GIVEN_GROUPS = 2
STEPS = 4
"""Euler steps of the generated clips: with frames given the first estimate is nearly right; more steps add error."""

ODD = ("slow", "fast", "small", "speed", "radius", "both")
"""What can be out of distribution about a clip, in the order in which it is shown."""


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


def score(
    videos: Sequence[np.ndarray],
    dataset: Clips,
    split: str,
    numbers: Sequence[int],
    measure: Callable[..., ClipError] = velocity_error,
) -> dict[str, Any]:
    """Mean velocity error in units/s with its 95% interval over clips, and the share of balls that were lost."""
    given = dataset.patch.frames(GIVEN_GROUPS)
    found = [measure(video, dataset.example(split, i), given) for video, i in zip(videos, numbers, strict=True)]
    found = [clip for clip in found if np.isfinite(clip.error)]
    if not found:
        raise UserError(f"no clip of split {split} of {dataset.path} has a ball in view after the given frames")
    mean = bootstrap_mean(np.array([clip.error for clip in found]))
    lost = float(np.mean([clip.lost for clip in found]))
    return {"mean": mean.mean, "interval": list(mean.interval), "lost": lost, "clips": len(found)}


def physics_errors(generator: Generator | LatentGenerator, dataset: Clips, split: str, count: int) -> dict[str, Any]:
    """Generates and scores the first `count` clips of a split, with the baselines they are compared with.

    Returns:
      As `score`, with "baselines" (see `physics_baselines`) and, where clips are out of distribution in different ways
      (slow, fast, small), "apart": the same for each of them.
    """
    numbers = physics_clips(dataset, split, count)
    videos = dict(zip(numbers, continue_clips(generator, dataset, split, numbers), strict=True))

    def of(chosen: Sequence[int]) -> dict[str, Any]:
        found = score([videos[i] for i in chosen], dataset, split, chosen)
        return found | {"baselines": physics_baselines(dataset, split, chosen)}

    parts = {odd: [i for i in numbers if _odd(dataset, split, i) == odd] for odd in ODD}
    apart = {odd: of(chosen) for odd, chosen in parts.items() if chosen}
    return of(numbers) | ({"apart": apart} if apart else {})


def physics_baselines(dataset: Clips, split: str, numbers: Sequence[int]) -> dict[str, float]:
    """The error of a frozen ball, of a straight line, and of the true clips (the floor of the measure), units/s."""
    true = [dataset.read_clip(split, i).video_TYXC for i in numbers]
    measures = {**BASELINES, "floor": velocity_error}
    return {name: score(true, dataset, split, numbers, measure)["mean"] for name, measure in measures.items()}


def physics_floor(dataset: Clips, split: str, count: int) -> dict[str, Any]:
    """The same measurement on the true clips: what a perfect model would score."""
    numbers = physics_clips(dataset, split, count)
    return score([dataset.read_clip(split, i).video_TYXC for i in numbers], dataset, split, numbers)


def _odd(dataset: Clips, split: str, i: int) -> str:
    """What is out of distribution about a clip; empty = nothing, or the data set does not say."""
    odd = dataset.example(split, i).get("odd", "")
    return odd.decode() if isinstance(odd, bytes) else str(odd)
