"""What a model makes of a first frame, between a floor and a ceiling.

The floor is the first frame repeated; the ceiling, for a model of latents, is what its autoencoder gives back of the
true clip. All are measured on the frames after the first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vdit.evaluation.clips import Clip
from vdit.evaluation.generated import FRAME_INTERVAL, SEED
from vdit.evaluation.intervals import bootstrap_mean
from vdit.evaluation.metrics.distances import clip_features, paired_kernel
from vdit.evaluation.metrics.likeness import psnr, ssim
from vdit.evaluation.metrics.pictures import blockiness, motion
from vdit.generation import Generator, LatentGenerator, Request, Settings
from vdit.patches import Patch

CONTINUE = Settings(steps=4, sampler="euler")
"""How first frames are continued: in few steps, as the study's models do."""

OfFrames = Callable[[np.ndarray], np.ndarray]


def continued(
    generator: Generator | LatentGenerator, clips: Sequence[Clip], given: int = 1, settings: Settings = CONTINUE
) -> list[np.ndarray]:
    """The clips as the model continues their first `given` frames, with their captions."""
    requests = []
    for clip in clips:
        frames, height, width, _ = clip.video_TYXC.shape
        known = np.ascontiguousarray(clip.video_TYXC[:given])
        requests.append(Request(clip.text_ME, frames, height, width, clip.fps, SEED ^ clip.id, known))
    return generator.generate(requests, **vars(settings))


def compare_continuations(
    made: dict[str, list[np.ndarray]], true: Sequence[np.ndarray], block: Patch, features: OfFrames | None = None
) -> dict[str, Any]:
    """Measures of each way of continuing clips, over clips, with intervals; "true" has those that need no truth.

    Args:
      made: videos by name of the way, among them "repeated": the first frame, repeated; in the order of `true`.
      true: the clips.
      block: frames, rows and columns of pixels that the model works on as one.
      features: of frames, for the kernel distance; None leaves that out.

    Returns:
      by way: psnr, ssim; psnr_gain over "repeated", clip by clip; blockiness and motion, means over clips; kernel.
    """
    out: dict[str, Any] = {}
    base = _clip_psnr(made["repeated"], true)
    for name, videos in {**made, "true": list(true)}.items():
        own: dict[str, Any] = {}
        if name != "true":
            values = _clip_psnr(videos, true)
            own["psnr"] = _mean(values)
            own["ssim"] = _mean(np.array([ssim(a[1:], b[1:]).mean() for a, b in zip(videos, true, strict=True)]))
            own["psnr_gain"] = _mean(values - base)
            if features is not None:
                seen = [clip_features([v[1:] for v in part], FRAME_INTERVAL, features) for part in (videos, true)]
                own["kernel"] = paired_kernel(seen[0], seen[1])
        own["blockiness"] = _mean(np.array([blockiness(v[1:], block.height, block.width) for v in videos]))
        own["motion"] = _mean(np.array([motion(v) for v in videos]))
        out[name] = own
    return out


def _clip_psnr(videos: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([psnr(a[1:], b[1:]).mean() for a, b in zip(videos, true, strict=True)])


def _mean(values_E: np.ndarray) -> dict[str, Any]:
    found = bootstrap_mean(values_E)
    return {"value": found.mean, "interval": list(found.interval)}
