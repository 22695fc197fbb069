"""The study's sample videos: files, and samples.json, which describes them for the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.reading.store import Dataset
from launch.experiments.runs.measures import Finished
from vdit.config import Config
from vdit.evaluation.balls.physics_task import GIVEN_GROUPS, continue_clips, physics_clips
from vdit.generation import Generator, LatentGenerator, Request, request_seed
from vdit.io import video as video_io
from vdit.io.files import read_json, write_json

PHYSICS_CLIPS = 4
FILM_SHOTS = 4
STEPS = 24
GUIDANCE = 2.0
SHOWN = 128
"""Pixels in height, at least about, that samples are enlarged to."""


def continued(out: Path, row: Mapping[str, Any], finished: Finished, unit: float) -> None:
    """Continuations by the best run of each budget; `unit` is the budget that is called 1x."""
    times, dataset = row["budget"] / unit, finished.own
    group = row["group"] if row["kind"] == "arm" else "compute"
    add_physics_samples(out, group, row["run"], times, row["budget"], row["loss"], finished.generator, dataset)


def captioned(out: Path, row: Mapping[str, Any], finished: Finished, unit: float) -> None:
    """Text to video, and first frames continued, beside the true shots."""
    del unit
    add_film_samples(out, row["run"], finished.generator, finished.own, finished.run.config)


SAMPLES: dict[str, Callable[[Path, Mapping[str, Any], Finished, float], None]] = {
    "continued": continued,
    "captioned": captioned,
}


def add_physics_samples(
    out: Path,
    group: str,
    run: str,
    times: float,
    compute: float,
    loss: float,
    generator: Generator | LatentGenerator,
    dataset: Dataset,
) -> None:
    """Continues the same validation clips, from the same noise, with the best run of every budget; and the truth, once.

    Args:
      out: folder of the study.
      group: of the samples, one for each world.
      run, times, compute, loss: name, multiple of the smallest budget, FLOPs, and validation loss of the run.
      generator: of the run.
      dataset: physics clips.
    """
    known = [sample for sample in _known(out) if sample["group"] == group]
    rivals = [sample for sample in known if sample["compute"] == compute]
    if rivals and min(sample["loss"] for sample in rivals) <= loss:
        return
    numbers = physics_clips(dataset, "val", PHYSICS_CLIPS)
    clips = [dataset.example("val", i) for i in numbers]
    captions = [clip.get("caption_short", f"Held-out clip {i}") for i, clip in zip(numbers, clips, strict=True)]
    given = dataset.patch.frames(GIVEN_GROUPS)
    fps = float(clips[0]["fps"])
    entries = []
    if not any(sample["run"] == "truth" for sample in known):
        for i, clip, caption in zip(numbers, clips, captions, strict=True):
            entry = {"run": "truth", "label": "ground truth", "column": 0.0, "compute": 0.0}
            entries.append(
                {
                    **entry,
                    **_write(out, f"{group}-truth-{i}", clip["video"], fps, given),
                    "caption": caption,
                    "row": caption,
                }
            )
    for i, video, caption in zip(numbers, continue_clips(generator, dataset, "val", numbers), captions, strict=True):
        label = f"{times:.3g}x compute"
        entry = {"run": run, "label": label, "column": compute, "compute": compute, "loss": loss}
        files = _write(out, f"{group}-{times:.3g}x-{i}", video, fps, given)
        entries.append({**entry, **files, "seed": 0, "given": f"{given} frames", "caption": caption, "row": caption})
    _add(out, [{"group": group, **entry} for entry in entries])


def add_film_samples(
    out: Path, run: str, generator: Generator | LatentGenerator, dataset: Dataset, config: Config
) -> None:
    """Held-out captions: the true shot, text to video, and its first frame continued.

    Of latents the true shot is what the autoencoder gives back.
    """
    index = dataset.index("val")
    frames, stride = config.data.max_frames, 1
    decode: Callable[[np.ndarray], np.ndarray] = lambda video_TYXC: video_TYXC  # noqa: E731
    if isinstance(generator, LatentGenerator):
        decode, stride = generator.decode, generator.time_stride
    fps = float(index.fps[0]) * stride
    entries: list[dict[str, Any]] = []
    requests, names = [], []
    for i in np.linspace(0, len(index) - 1, min(FILM_SHOTS, len(index))).astype(int):
        caption = dataset.example("val", i)["caption_short"]
        clip = dataset.read_clip("val", int(i), 0, min(frames, int(index.frames[i])), "short")
        true_TYXC = decode(clip.video_TYXC)
        entry = {"group": "film", "caption": caption, "row": caption, "run": run, "compute": None}
        entries.append(
            {**entry, "column": "film", "label": "the film", **_write(out, f"film-{i}-true", true_TYXC, fps)}
        )
        height, width = true_TYXC.shape[1:3]
        for column, given in (("text to video", None), ("first frame given", true_TYXC[:1])):
            seed = request_seed(0, caption)
            requests.append(Request(clip.text_ME, len(true_TYXC), height, width, fps, seed, given))
            file = f"film-{i}-{column.replace(' ', '-')}"
            names.append({**entry, "column": column, "label": column, "seed": 0, "file": file})
    videos = generator.generate(requests, steps=STEPS, guidance=GUIDANCE)
    for entry, video in zip(names, videos, strict=True):
        entries.append({**entry, **_write(out, entry.pop("file"), video, fps)})
    _add(out, entries)


def _write(out: Path, name: str, video_TYXC: np.ndarray, fps: float, given: int = 0) -> dict[str, str]:
    """Writes a video and a strip of its frames, those `given` marked."""
    folder = out / "samples"
    folder.mkdir(parents=True, exist_ok=True)
    scale = max(4, SHOWN // video_TYXC.shape[1])
    video_io.write_mp4(folder / f"{name}.mp4", video_TYXC, fps, scale=scale)
    video_io.write_png(folder / f"{name}.png", video_io.strip(video_TYXC, scale=scale, given=given))
    return {"mp4": f"{name}.mp4", "png": f"{name}.png"}


def _known(out: Path) -> list[dict[str, Any]]:
    path = out / "samples" / "samples.json"
    return read_json(path, list) if path.exists() else []


def _add(out: Path, entries: list[dict[str, Any]]) -> None:
    """Adds entries, replacing those of the same file."""
    files = {entry["mp4"] for entry in entries}
    kept = [entry for entry in _known(out) if entry["mp4"] not in files]
    write_json(out / "samples" / "samples.json", kept + entries)
