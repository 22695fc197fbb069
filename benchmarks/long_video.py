"""Long videos of bouncing balls by windows, and how they drift: `python -m benchmarks.long_video --workdir=W`.

Validation clips with walls, in which balls should stay for ever, are extended from their first five frames. The command
writes drift.json, drift.png and the first video as long.mp4 with a strip, long.png.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run trained on physics clips.")
DATA = flags.DEFINE_string("data", None, "Its data set, if it has moved.")
OUT = flags.DEFINE_string("out", "long", "Folder to write to.")
SECONDS = flags.DEFINE_float("seconds", 60.0, "Length of the videos.")
VIDEOS = flags.DEFINE_integer("videos", 16, "How many.")
WINDOW = flags.DEFINE_integer("window", 25, "Frames denoised at once.")
STEPS = flags.DEFINE_integer("steps", 12, "Denoising steps, of Euler without guidance.")

TITLES = {"ink": "mean distance from white", "sharpness": "steepest edges", "balls": "balls in view"}


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if WORKDIR.value is None:
        raise UserError("--workdir=W is needed: the folder of a run")
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.record.workdir import read_config

    initialise(cpu_devices_for(read_config(WORKDIR.value)))
    from data_pipelines.reading.store import Dataset
    from vdit.evaluation.balls.drift import drift, level
    from vdit.generation.long import extend
    from vdit.generation.restore import generator_of, load_run
    from vdit.io import video as video_io

    run = load_run(WORKDIR.value, None, DATA.value)
    dataset = Dataset(run.config.data.path)
    truth, requests = walled(dataset, VIDEOS.value, SECONDS.value)
    fps = requests[0].fps
    start = time.monotonic()
    parts = list(extend(generator_of(run), requests, WINDOW.value, steps=STEPS.value))
    videos = [np.concatenate(own) for own in zip(*parts, strict=True)]
    seconds = time.monotonic() - start
    folder = Path(OUT.value)
    folder.mkdir(parents=True, exist_ok=True)
    result = {
        "checkpoint": f"{run.workdir.name}@{run.position.step}",
        "frames": len(videos[0]),
        "videos": len(videos),
        "generated": drift(videos, fps),
        "true": level(truth),
        "seconds": seconds,
    }
    (folder / "drift.json").write_text(json.dumps(result) + "\n")
    video_io.write_mp4(folder / "long.mp4", videos[0], fps, 4)
    video_io.write_png(folder / "long.png", np.concatenate([video_io.strip(v, 12, 2) for v in _same_size(videos)]))
    video_io.write_png(folder / "drift.png", plot(result))
    print(f"{len(videos)} videos of {len(videos[0])} frames in {seconds:.0f} s: {folder}/drift.png, long.mp4, long.png")


def walled(dataset: Any, count: int, seconds: float) -> tuple[list[np.ndarray], list[Any]]:
    """True clips in which balls bounce between walls, and requests to go on from their first two groups.

    Raises:
      UserError: if the data set has too few.
    """
    from vdit.generation import Request

    given = dataset.patch.frames(2)
    truth, requests = [], []
    for i in range(len(dataset.index("val"))):
        example = dataset.example("val", i)
        if "walls" not in example["caption_short"] or len(requests) == count:
            continue
        clip = dataset.read_clip("val", i, caption="short")
        _, height, width, _ = clip.video_TYXC.shape
        frames = dataset.patch.floor_frames(round(seconds * clip.fps) + dataset.patch.time - 1)
        truth.append(clip.video_TYXC)
        requests.append(Request(clip.text_ME, frames, height, width, clip.fps, clip.id, clip.video_TYXC[:given]))
    if len(requests) < count:
        raise UserError(
            f"{dataset.path} has {len(requests)} validation clips with walls; ask for --videos={len(requests)}"
        )
    return truth, requests


def _same_size(videos: list[np.ndarray]) -> list[np.ndarray]:
    """The first few videos of the first one's size."""
    return [video for video in videos if video.shape == videos[0].shape][:3]


def plot(result: dict[str, Any], width: int = 420, height: int = 240) -> np.ndarray:
    """One panel a measure: the mean over the videos and its interval, second by second; the true clips' mean dashed."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (width * len(TITLES), height), "white")
    draw = ImageDraw.Draw(image, "RGBA")
    font = ImageFont.load_default(13)
    drifted = result["generated"]
    last = drifted["second"][-1]
    for panel, (name, title) in enumerate(TITLES.items()):
        values, true = drifted[name], result["true"][name]
        top = 1.1 * max(*values["high"], true, 1e-6)
        left, low, right, high = panel * width + 45, height - 35, (panel + 1) * width - 15, 35
        x = lambda s, left=left, right=right: left + (right - left) * s / last  # noqa: E731
        y = lambda v, top=top, low=low, high=high: low - (low - high) * v / top  # noqa: E731
        draw.line([left, high, left, low, right, low], fill="black")
        draw.text((left, 10), title, fill="black", font=font)
        for share in (0, 0.5, 1):
            draw.text((left - 40, y(top * share) - 8), f"{top * share:.3g}", fill="black", font=font)
            draw.text((x(last * share) - 14, low + 6), f"{last * share:.0f} s", fill="black", font=font)
        seconds = drifted["second"]
        band = [(x(s), y(v)) for s, v in zip(seconds, values["high"], strict=True)]
        band += [(x(s), y(v)) for s, v in reversed(list(zip(seconds, values["low"], strict=True)))]
        draw.polygon(band, fill=(40, 90, 200, 60))
        draw.line(
            [(x(s), y(v)) for s, v in zip(seconds, values["mean"], strict=True)], fill=(40, 90, 200, 255), width=2
        )
        for dash in range(left, right, 12):
            draw.line([dash, y(true), dash + 6, y(true)], fill=(200, 60, 40, 255), width=2)
    return np.asarray(image)


if __name__ == "__main__":
    run_main(main)
