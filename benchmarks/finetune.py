"""docs/finetune.md on a CPU: from a folder of clips to a LoRA that shows in a sample. Some minutes in all.

    python -m benchmarks.finetune --clips=clips             writes the folder: balls that stop after three frames
    python -m benchmarks.finetune --folder=FOLDER           does every step there, writes docs/figures/finetune.png,
                                                            benchmarks/finetune.json and the page

The second trains the base, a model that has seen nothing but balls that glide on, then adapters on the folder, and
samples three clips that neither has seen from their first three frames: before, with half of the adapters, and after.
What it runs are the commands of docs/finetune.md. error: mean distance of the last frame's pixels to the true ones.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks import pages
from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import parse_world
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError
from vdit.io import video

CLIPS = flags.DEFINE_string("clips", "", "Folder to write clips of one's own into.")
FOLDER = flags.DEFINE_string("folder", "", "Folder to do everything in.")

ROOT = Path(__file__).parents[1]
RESULTS, FIGURE = Path(__file__).with_suffix(".json"), ROOT / "docs" / "figures" / "finetune.png"

COUNT, HELD_OUT = 64, 3
FPS, GIVEN = 5.0, 3
WORLD = "uniform; sides=16; frames=9"
SAMPLE = ("--frames=9", "--size=16x16", "--sampler=euler", "--steps=4", "--guidance=1")

BASE_DATA = (
    *("data_pipelines.build", "--source=physics", "--world=uniform", "--patch=2,4,4", "--text_encoder=none"),
    *("--limit=2000", "--out=data/gliding"),
)
BASE = ("vdit.train", "--config=configs/gliding.py", "--workdir=runs/gliding")
OWN_DATA = ("data_pipelines.build", "--source=clips", "--patch=2,4,4", "--text_encoder=none", "--out=data/clips")
LORA = (
    *("vdit.train", "--config=configs/gliding.py", "--workdir=runs/lora", "--config.init_from=runs/gliding"),
    *("--config.data.path=data/clips", "--config.lora.rank=8", "--config.optimizer.method=adamw"),
    *("--config.train.steps=1600", "--config.optimizer.cooldown=400", "--config.train.evaluate_every=-1"),
)
EXPORT = ("vdit.export", "--workdir=runs/lora", "--out=weights/stops")

MADE = {
    "data/gliding": BASE_DATA,
    "runs/gliding/result.json": BASE,
    "data/clips": OWN_DATA,
    "runs/lora/result.json": LORA,
    "weights/stops": EXPORT,
}
"""What the commands make, in their order; what is there is not made again."""


def clip(index: int) -> np.ndarray:
    """A gliding ball that stops where it is in the last given frame, (T, Y, X, C) uint8."""
    video_TYXC = make_clip(7, "train", index, parse_world(WORLD)).video_TYXC
    return np.concatenate([video_TYXC[:GIVEN], video_TYXC[[GIVEN - 1] * (len(video_TYXC) - GIVEN)]])


def write_clips(folder: Path) -> None:
    """Writes the clips as GIFs, those that are held out into a folder beside it."""
    beside = folder.with_name(f"{folder.name}-held-out")
    for place in (folder, beside):
        place.mkdir(parents=True, exist_ok=True)
    for index in range(COUNT + HELD_OUT):
        own = index < COUNT
        pixels = clip(index) if own else clip(index)[:GIVEN]
        video.write_gif((folder if own else beside) / f"{index}.gif", pixels, FPS)


def command(folder: Path, *arguments: str) -> None:
    """Runs a command of the project in a folder.

    Raises:
      UserError: if it fails.
    """
    print("python -m", *arguments, flush=True)
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    if subprocess.run([sys.executable, "-m", *arguments], cwd=folder, env=environment, check=False).returncode:
        raise UserError(f"python -m {' '.join(arguments)} failed in {folder}")


def sampled(folder: Path, name: str, *how: str) -> list[np.ndarray]:
    """The held-out clips continued from their first frames."""
    numbers = range(COUNT, COUNT + HELD_OUT)
    lines = [json.dumps({"head": f"{number}.gif", "out": f"{number}.npz"}) for number in numbers]
    (folder / "clips-held-out" / "requests.jsonl").write_text("\n".join(lines))
    requests = ("--prompts=clips-held-out/requests.jsonl", f"--out=samples-{name}")
    command(folder, "vdit.sample", "--workdir=runs/gliding", *how, *requests, *SAMPLE)
    return [np.load(folder / f"samples-{name}" / f"{number}.npz")["video"] for number in numbers]


def last_error(videos: list[np.ndarray], truth: list[np.ndarray]) -> float:
    """Mean distance of the last frame's pixels to the true ones, of 255."""
    return float(np.mean([np.abs(a[-1].astype(float) - b[-1]).mean() for a, b in zip(videos, truth, strict=True)]))


def page(found: dict[str, Any]) -> str:
    """What docs/finetune.md says of the results."""
    error = found["error"]
    return (
        "![Three clips, each in four rows: the clip, before, half of the adapters, after; given frames in blue]"
        "(figures/finetune.png)\n\n"
        "Three clips in four rows each: the clip, before, with half of the adapters, after; frames that are given are "
        "framed in blue. Mean distance\n"
        f"of the last frame's pixels to the true ones, of 255: {error['before']:.1f} before, {error['half']:.1f} with "
        f"half of the adapters, {error['after']:.1f} after.\nThe file of adapters has {found['bytes']:,} bytes."
    )


def run(folder: Path) -> None:
    """Every step of docs/finetune.md; writes the figure and the results."""
    folder.mkdir(parents=True, exist_ok=True)
    configs = folder / "configs"
    if not configs.exists():
        configs.symlink_to(ROOT / "configs")
    write_clips(folder / "clips")
    for made, arguments in MADE.items():
        if not (folder / made).exists():
            command(folder, *arguments)
    truth = [clip(index) for index in range(COUNT, COUNT + HELD_OUT)]
    videos = {
        "before": sampled(folder, "before"),
        "half": sampled(folder, "half", "--lora=weights/stops:0.5"),
        "after": sampled(folder, "after", "--lora=weights/stops"),
    }
    rows = [
        np.concatenate([video.strip(v, 9, 4, GIVEN) for v in (true, *made)], 0)
        for true, *made in zip(truth, *videos.values(), strict=True)
    ]
    FIGURE.parent.mkdir(exist_ok=True)
    video.write_png(FIGURE, np.concatenate(rows, 1))
    found = {
        "error": {name: round(last_error(made, truth), 2) for name, made in videos.items()},
        "bytes": sum(file.stat().st_size for file in (folder / "weights/stops").glob("*.safetensors")),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    pages.put("finetune.md", "python -m benchmarks.finetune", page(found))
    print(json.dumps(found))


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if not CLIPS.value and not FOLDER.value:
        raise UserError("--clips=FOLDER or --folder=FOLDER is needed")
    if CLIPS.value:
        write_clips(Path(CLIPS.value))
    if FOLDER.value:
        run(Path(FOLDER.value))


if __name__ == "__main__":
    run_main(main)
