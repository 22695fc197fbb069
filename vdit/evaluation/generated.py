"""Measures of generated clips under one protocol, which is part of the results.

Captions, sizes, lengths and frame rates are those of the first clips of a split. Noise follows from a fixed seed and
the clip's id. Pixels are compared as generated, before any codec.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vdit.errors import UserError
from vdit.evaluation.balls.adherence import Adherence, adherence
from vdit.evaluation.balls.physics_task import GIVEN_GROUPS, continue_clips, has_truth, physics_clips, physics_errors
from vdit.evaluation.clips import Clips
from vdit.evaluation.intervals import bootstrap_mean
from vdit.evaluation.metrics.distances import clip_features, distances
from vdit.evaluation.metrics.likeness import psnr, ssim
from vdit.evaluation.metrics.motion_masks import SMALLEST, compare, motion_of_clip, summary
from vdit.generation import Generator, LatentGenerator, Request, Settings
from vdit.models.features import efficientnet, i3d, inception

SEED = 0
FRAME_INTERVAL = 4
"""Every so many frames of a clip are compared by the distances."""
TEXT = Settings(steps=20, sampler="dpm++", guidance=3.0)
"""How text to video is sampled. Euler with 12 steps, without guidance, samples what continues given frames."""
GIVEN = Settings(steps=12, sampler="euler")

SEEDS = 4
"""Noises from which each clip is continued for its motion masks."""

MODES = ("first_frame", "two_groups", "last_frame", "first_last")
"""Ways of giving frames whose likeness to the true clip is measured."""


def protocol(dataset: Clips, split: str, count: int, settings: Settings) -> dict[str, Any]:
    """What a result depends on besides the model."""
    return {
        "data": {"source": dataset.meta["source"], "build": dataset.meta["build"]},
        "split": split,
        "clips": count,
        "seed": SEED,
        "codec": "none",
        "steps": settings.steps,
        "sampler": settings.sampler,
        "schedule": settings.schedule,
        "guidance": settings.guidance,
    }


def text_to_video(
    generator: Generator | LatentGenerator,
    dataset: Clips,
    split: str,
    numbers: Sequence[int],
    caption: str = "",
    settings: Settings = TEXT,
    frames: int = 0,
) -> list[np.ndarray]:
    """Videos from the captions of clips, of their sizes and lengths, or of `frames` at most.

    `caption` is another kind than the first.
    """
    requests = []
    for i in numbers:
        clip = dataset.read_clip(split, i, caption=caption or dataset.meta["captions"][0])
        length, height, width, _ = clip.video_TYXC.shape
        length = min(length, frames or length)
        requests.append(Request(clip.text_ME, length, height, width, clip.fps, SEED ^ clip.id))
    return generator.generate(requests, **vars(settings))


def adherence_of(
    videos: Sequence[np.ndarray],
    dataset: Clips,
    split: str,
    numbers: Sequence[int],
    caption: str = "",
    settings: Settings = TEXT,
) -> dict[str, Any]:
    """Shares of videos that show what their captions say, with 95% intervals, and those of the true clips.

    `caption` is another kind than the first, that which says most: a prompt may have been of a shorter kind.
    """
    examples = [dataset.example(split, i) for i in numbers]
    captions = [example["caption_" + (caption or dataset.meta["captions"][0])] for example in examples]
    out: dict[str, Any] = {}
    for name, clips in (("generated", videos), ("true", [example["video"] for example in examples])):
        found = np.array([adherence(video, caption) for video, caption in zip(clips, captions, strict=True)], float)
        out[name] = {field: _share(found[:, i]) for i, field in enumerate(Adherence._fields)}
    return {**out, "protocol": protocol(dataset, split, len(numbers), settings)}


def _share(values_E: np.ndarray) -> dict[str, Any]:
    mean = bootstrap_mean(values_E)
    return {"value": mean.mean, "interval": list(mean.interval)}


OfVideos = Callable[[Sequence[np.ndarray]], list[np.ndarray]]


class Features(NamedTuple):
    """What clips are compared by.

    Attributes:
      name: what they are.
      of: features_NF of each of some videos_TYXC.
      kernel, frechet: what the two distances of these features are called.
      frame_interval: of every so many frames one is measured.
    """

    name: str
    of: OfVideos
    kernel: str = "kernel"
    frechet: str = "frechet"
    frame_interval: int = FRAME_INTERVAL


@functools.cache
def of_frames(function: Callable[[np.ndarray], np.ndarray]) -> OfVideos:
    """Features of videos from a function of frames_NYXC."""
    return lambda videos: clip_features(videos, FRAME_INTERVAL, function)


def lite_features() -> Features:
    """EfficientNet-Lite0, whose weights anyone can fetch."""
    return Features(f"EfficientNet-Lite0 {efficientnet.SHA256[:16]}", of_frames(efficientnet.load_features()))


def inception_features(path: str) -> Features:
    """What makes the distances the FID and the KID, from the user's file of weights."""
    function, name = inception.load_features(path)
    return Features(name, of_frames(function), "kid", "fid")


def i3d_features(path: str) -> Features:
    """What makes the distances the FVD and its kernel twin, from the user's file of weights."""
    function, name = i3d.load_features(path)
    return Features(name, lambda videos: [function(video) for video in videos], "kvd", "fvd", 1)


def distances_of(
    videos: Sequence[np.ndarray], dataset: Clips, split: str, numbers: Sequence[int], features: Features
) -> dict[str, Any]:
    """Distances of generated clips from true ones, and of true ones from others: the floor.

    Args:
      videos: generated from the captions of the clips `numbers`.
      dataset, split: where the true clips are; as many others of the split are what both are compared with.
      numbers: the clips.
      features: what they are compared by.

    Raises:
      ValueError: if the split has fewer than twice as many clips.
    """
    size = dataset.size(split)
    others = [i for i in range(size) if i not in set(numbers)][: len(numbers)]
    if len(others) < len(numbers):
        raise ValueError(f"distances of {len(numbers)} clips need {2 * len(numbers)} of split {split}, it has {size}")
    of_true, of_wanted = (_of_true(features.of, dataset, split, tuple(chosen)) for chosen in (numbers, others))
    names = {"kernel": features.kernel, "frechet": features.frechet}
    out: dict[str, Any] = {"features": features.name}
    for kind, found in (("generated", features.of(videos)), ("floor", of_true)):
        out[kind] = {names[name]: value for name, value in distances(found, of_wanted).items()}
    own = protocol(dataset, split, len(numbers), TEXT)
    return {**out, "protocol": own | {"frame_interval": features.frame_interval}}


@functools.lru_cache(maxsize=8)
def _of_true(of: OfVideos, dataset: Clips, split: str, numbers: tuple[int, ...]) -> list[np.ndarray]:
    """Features of true clips; kept, as one model after another is compared with the same."""
    return of([dataset.example(split, i)["video"] for i in numbers])


def likeness_of(
    generator: Generator | LatentGenerator, dataset: Clips, split: str, numbers: Sequence[int]
) -> dict[str, Any]:
    """PSNR and SSIM of the generated frames of clips, by which frames are given, and the error of the given ones."""
    clips = [dataset.read_clip(split, i, caption=dataset.meta["captions"][0]) for i in numbers]
    step = dataset.patch.time
    ends = {"first_frame": (1, 0), "two_groups": (1 + step, 0), "last_frame": (0, step), "first_last": (1, step)}
    wanted = [(mode, clip) for mode in MODES for clip in clips if len(clip.video_TYXC) > sum(ends[mode])]
    requests, masks = [], []
    for mode, clip in wanted:
        mask_TYX = np.zeros(clip.video_TYXC.shape[:3], bool)
        head, tail = ends[mode]
        mask_TYX[:head] = True
        mask_TYX[len(mask_TYX) - tail :] = True
        masks.append(mask_TYX[:, 0, 0])
        frames, height, width, _ = clip.video_TYXC.shape
        seed = SEED ^ clip.id
        requests.append(Request(clip.text_ME, frames, height, width, clip.fps, seed, clip.video_TYXC, mask_TYX))
    videos = generator.generate(requests, **vars(GIVEN))
    out: dict[str, Any] = {}
    for mode in MODES:
        of_mode = [
            (video, clip.video_TYXC, given_T)
            for (own, clip), video, given_T in zip(wanted, videos, masks, strict=True)
            if own == mode
        ]
        errors = [np.abs(a[given].astype(float) - b[given]).max() for a, b, given in of_mode]
        out[mode] = {"given_error": float(max(errors))}
        for name, measure in (("psnr", psnr), ("ssim", ssim)):
            values = [measure(a[~given], b[~given]).mean() for a, b, given in of_mode]
            out[mode][name] = _share(np.array(values))
    return {**out, "protocol": protocol(dataset, split, len(numbers), GIVEN)}


def motion_masks_of(generator: Generator | LatentGenerator, dataset: Clips, split: str, count: int) -> dict[str, Any]:
    """The measures of `motion_masks` of clips continued from their first two groups, from `SEEDS` noises each.

    The frames compared are those that were generated, and the last given one. "frozen" repeats that one: it is what a
    model scores of which nothing moves.
    """
    numbers = physics_clips(dataset, split, count)
    if not numbers:
        raise UserError(f"no clip of split {split} of {dataset.path} is longer than what is given of it")
    begin = dataset.patch.frames(GIVEN_GROUPS) - 1
    true = [dataset.read_clip(split, i).video_TYXC[begin:] for i in numbers]
    moves = [motion_of_clip(video_TYXC) for video_TYXC in true]
    found_SE = []
    for seed in range(SEEDS):
        videos = continue_clips(generator, dataset, split, numbers, seed)
        made = [motion_of_clip(video_TYXC[begin:]) for video_TYXC in videos]
        found_SE.append([compare(a, b) for a, b in zip(made, moves, strict=True)])
    frozen = [motion_of_clip(np.repeat(video_TYXC[:1], len(video_TYXC), 0)) for video_TYXC in true]
    still = summary([[compare(a, b) for a, b in zip(frozen, moves, strict=True)]])
    return {
        **summary(found_SE),
        "frozen": {name: still[name]["mean"] for name in still},
        "clips": len(numbers),
        "protocol": {"seeds": SEEDS, "shorter_side_at_least": SMALLEST},
    }


def measure(
    generator: Generator | LatentGenerator,
    dataset: Clips,
    trained: str,
    names: Sequence[str],
    count: int,
    compared: Mapping[str, Features] | None = None,
) -> dict[str, Any]:
    """The measures of `vdit.evaluate` that generate clips.

    Args:
      generator: of the run.
      dataset: with the splits to measure on.
      trained: split that was trained on, which is left out.
      names: of "velocity", "adherence", "likeness" and "motion_masks". The first two need physics clips, and are left
        out without them.
      count: clips of each split, or half of a smaller one.
      compared: features to measure distances by, by what their result is to be called.

    Raises:
      UserError: if the data set holds latents.
    """
    if dataset.meta["autoencoder"]["name"] != "pixels":
        raise UserError(
            f"{dataset.path} holds latents; measure generated clips on a data set of pixels, or only the loss"
        )
    held_out = [split for split in dataset.splits if split != trained]
    out: dict[str, Any] = {}
    if "velocity" in names and has_truth(dataset):
        out["physics_error"] = {split: physics_errors(generator, dataset, split, count) for split in held_out}
    if "motion_masks" in names:
        out["motion_masks"] = {split: motion_masks_of(generator, dataset, split, count) for split in held_out}
    split = held_out[0]
    numbers = list(range(min(count, dataset.size(split) // 2)))
    adheres = "adherence" in names and has_truth(dataset)
    if adheres or compared:
        videos = text_to_video(generator, dataset, split, numbers)
        if adheres:
            out["adherence"] = adherence_of(videos, dataset, split, numbers)
        for name, features in (compared or {}).items():
            out[name] = distances_of(videos, dataset, split, numbers, features)
    if "likeness" in names:
        out["likeness"] = likeness_of(generator, dataset, split, numbers)
    return out
