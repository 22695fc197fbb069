"""Videos of any length, by windows that overlap: each is given the last frames of the one before."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from vdit.config import UserError
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
    request: Request,
    window: int,
    overlap_groups: int = OVERLAP_GROUPS,
    **settings: Any,
) -> Iterator[np.ndarray]:
    """Yields the frames of a long video in order, a few at a time, in memory that does not grow with its length.

    Args:
      generator: of the run.
      request: nothing or frames at the start given; `frames` of any length.
      window: frames denoised at once, 1 + k patch.time.
      overlap_groups: groups of frames that a window is given of the one before.
      **settings: see `Generator.generate`.

    Raises:
      UserError: if the overlap leaves nothing of a window to generate.
    """
    patch = generator.patch
    overlap = patch.frames(overlap_groups)
    check_window(window, overlap, patch)
    given = request.given_TYXC
    if given is not None:
        yield given
    done = 0 if given is None else len(given)
    context = None if given is None else given[-min(patch.floor_frames(len(given)), overlap) :]
    number = 0
    while done < request.frames:
        seed = request.seed if number == 0 else request_seed(request.seed & 0xFFFFFFFF, f"window {number}")
        part = dataclasses.replace(request, frames=window, given_TYXC=context, seed=seed)
        (video,) = generator.generate([part], **settings)
        new = video[0 if context is None else len(context) :][: request.frames - done]
        yield new
        done, number, context = done + len(new), number + 1, video[-overlap:]
