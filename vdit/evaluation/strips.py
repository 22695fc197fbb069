"""Strips of generated clips under the true ones, as a run makes them while it trains (config.train.sample_clips)."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from vdit.config import Modes
from vdit.evaluation.clips import Clip, Clips
from vdit.evaluation.generated import GIVEN, SEED, TEXT
from vdit.generation import Request
from vdit.generation.restore import generator_of
from vdit.io import video
from vdit.training.run import Run

HEIGHT = 64
"""Pixels to which small frames are brought, as a whole multiple."""
GAP = 4
"""White pixels between clips."""


def sample_strips(run: Run, dataset: Clips, count: int) -> dict[str, np.ndarray]:
    """Pictures image_YXC of a run's averaged parameters: "text" from captions, "continued" from given frames.

    Of each clip the upper strip is the true one; given ones have a blue rim. A picture is made only of what
    the run is trained for. There is none in a run of several processes, which cannot sample, nor of latents, whose
    true clips are not at hand.

    Args:
      run: to sample.
      dataset: whose first held-out split the first clips are taken from.
      count: clips; 0 = none.
    """
    held_out = [split for split in dataset.splits if split != run.config.data.split]
    latents = dataset.meta["autoencoder"]["name"] != "pixels"
    if not count or jax.process_count() > 1 or latents or not held_out:
        return {}
    split, kind = held_out[0], next(iter(dataset.meta["captions"]), None)
    clips = [dataset.read_clip(split, i, caption=kind) for i in range(min(count, dataset.size(split)))]
    modes, generator = run.config.diffusion.modes, generator_of(run)
    images = {}
    if given := _given(modes, dataset.patch.time):
        longer = [clip for clip in clips if len(clip.video_TYXC) > given]
        if longer:
            videos = generator.generate([_request(clip, given) for clip in longer], **vars(GIVEN))
            images["continued"] = _picture(longer, videos, given)
    if modes.text and kind:
        images["text"] = _picture(clips, generator.generate([_request(clip, 0) for clip in clips], **vars(TEXT)), 0)
    return images


def _given(modes: Modes, group: int) -> int:
    """Frames at the start that the run has learned to continue."""
    if modes.two_groups or modes.head:
        return 1 + group
    return 1 if modes.first_frame else 0


def _request(clip: Clip, given: int) -> Request:
    frames, height, width, _ = clip.video_TYXC.shape
    start = clip.video_TYXC[:given] if given else None
    return Request(clip.text_ME, frames, height, width, clip.fps, SEED ^ clip.id, start)


def _picture(clips: Sequence[Clip], videos: Sequence[np.ndarray], given: int) -> np.ndarray:
    """True and generated strips of all clips, one below another on white."""
    strips: list[np.ndarray] = []
    for clip, made_TYXC in zip(clips, videos, strict=True):
        scale = max(1, round(HEIGHT / made_TYXC.shape[1]))
        pair = [
            video.strip(clip.video_TYXC, scale=scale, given=given),
            video.strip(made_TYXC, scale=scale, given=given),
        ]
        strips += [*pair, np.full((GAP, 1, 3), 255, np.uint8)]
    width = max(strip_YXC.shape[1] for strip_YXC in strips)
    padded = [
        np.pad(strip_YXC, ((0, 0), (0, width - strip_YXC.shape[1]), (0, 0)), constant_values=255)
        for strip_YXC in strips[:-1]
    ]
    return np.concatenate(padded)
