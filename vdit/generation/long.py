"""Videos of any length, by windows that overlap: each is given the last frames of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.generation.generator import Generator
from vdit.generation.latents import LatentGenerator
from vdit.generation.request import Request, request_seed
from vdit.patches import Patch

OVERLAP_GROUPS = 2
"""Groups of frames that a window is given of the one before."""


def check_window(window: int, overlap: int, patch: Patch) -> None:
    """Raises UserError if a window leaves nothing to generate or is not of the form 1 + k * patch.time."""
    if overlap >= window or (window - 1) % patch.time:
        raise UserError(
            f"--window={window} is not 1 + k*{patch.time} frames, more than the {overlap} that a window is given; "
            f"take {max(patch.floor_frames(window), overlap + patch.time)}"
        )


def window_count(frames: int, given: int, window: int, overlap: int) -> int:
    """Windows that `extend` needs for `frames` frames of which the first window is given `given`."""
    rest = frames - given - (window - min(given, overlap))
    return 1 + max(0, -(-rest // (window - overlap)))


def extend(
    generator: Generator | LatentGenerator,
    requests: Sequence[Request],
    window: int,
    overlap_groups: int = OVERLAP_GROUPS,
    **settings: Any,
) -> Iterator[list[np.ndarray]]:
    """Yields the frames of long videos in order, a few of each at a time, in memory that does not grow with the length.

    Args:
      generator: of the run.
      requests: of one length, with nothing or as many frames at the start given; `frames` may be any number.
      window: frames denoised at once, 1 + k patch.time.
      overlap_groups: groups of frames that a window is given of the one before.
      **settings: see `Generator.generate`.

    Raises:
      UserError: if the overlap leaves nothing of a window to generate.
      ValueError: if the requests differ in length.
    """
    patch = generator.patch
    overlap = patch.frames(overlap_groups)
    check_window(window, overlap, patch)
    if len({(r.frames, 0 if r.given_TYXC is None else len(r.given_TYXC)) for r in requests}) != 1:
        raise ValueError("long videos that are made together are of one length, with as many frames given")
    heads = [r.given_TYXC for r in requests if r.given_TYXC is not None]
    if heads:
        yield heads
    done = len(heads[0]) if heads else 0
    context = [head[-min(patch.floor_frames(done), overlap) :] for head in heads]
    number = 0
    while done < requests[0].frames:
        parts = [_window(r, number, window, context[i] if context else None) for i, r in enumerate(requests)]
        videos = generator.generate(parts, **settings)
        new = [
            video[len(context[i]) if context else 0 :][: requests[0].frames - done] for i, video in enumerate(videos)
        ]
        yield new
        done, number, context = done + len(new[0]), number + 1, [video[-overlap:] for video in videos]


def _window(request: Request, number: int, window: int, context: np.ndarray | None) -> Request:
    """The request for one window, with noise of its own."""
    seed = request.seed if number == 0 else request_seed(request.seed & 0xFFFFFFFF, f"window {number}")
    return dataclasses.replace(request, frames=window, given_TYXC=context, seed=seed)
