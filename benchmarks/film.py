"""What models of the film make of a first frame and of captions, beside floors and ceilings (docs/film.md).

    python -m benchmarks.film [--workdirs=runs/film-short,weights/film] [--strip=docs/figures/film.png] [--page]

--data are the shots in pixels, at the models' size. From the first frame of each shot the next 16 are made: PSNR, SSIM,
kernel distance of EfficientNet-Lite0 features, blockiness and motion, beside the frame repeated and what the
autoencoder gives back of the true frames. From each shot's short caption a clip is made: is the shot's own first window
among the nearest of all shots'? For held-out shots, which were never seen: is the training shot that is nearest to the
sample one of the ten that are nearest to the true clip?
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from PIL import Image

from benchmarks.pages import put, table
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

CAPTION = "short"
ALIKE = 10
"""Training shots nearest to a held-out one that count as alike."""
SHOWN = 5
"""Frames of a clip in the strip."""


@dataclasses.dataclass(frozen=True)
class Shots:
    """The first windows of the shots of a split that are long enough, and their numbers in the data set."""

    numbers: list[int]
    clips: list[Any]

    @property
    def videos(self) -> list[np.ndarray]:
        return [clip.video_TYXC for clip in self.clips]


def read_shots(dataset: Any, split: str, frames: int) -> Shots:
    """Shots of a split of at least so many frames, with their captions."""
    numbers = np.flatnonzero(dataset.frames(split) >= frames).tolist()
    if not numbers:
        raise UserError(f"{dataset.path} has no shot of {frames} frames in split {split}; lower --frames")
    return Shots(numbers, [dataset.read_clip(split, i, 0, frames, CAPTION) for i in numbers])


@dataclasses.dataclass(frozen=True)
class Truth:
    """What models are measured against.

    Attributes:
      shots: of each split, all that samples may resemble.
      seen: features of their frames.
      sampled: of each split, those that are made; positions among `shots`.
    """

    shots: dict[str, Shots]
    seen: dict[str, list[np.ndarray]]
    sampled: dict[str, np.ndarray]

    def chosen(self, split: str) -> Shots:
        """The shots that are made."""
        of, places = self.shots[split], self.sampled[split]
        return Shots([of.numbers[i] for i in places], [of.clips[i] for i in places])


def read_truth(dataset: Any, frames: int, most: int, features: Any) -> Truth:
    """All shots of at least so many frames; of those of training `most` are made, spread evenly (0 = all)."""
    from vdit.evaluation.generated import FRAME_INTERVAL
    from vdit.evaluation.metrics.distances import clip_features

    shots = {split: read_shots(dataset, split, frames) for split in ("train", "val")}
    seen = {split: clip_features(own.videos, FRAME_INTERVAL, features) for split, own in shots.items()}
    counts = {split: len(own.numbers) for split, own in shots.items()}
    some = min(most or counts["train"], counts["train"])
    train = np.linspace(0, counts["train"] - 1, some).round().astype(int)
    return Truth(shots, seen, {"train": train, "val": np.arange(counts["val"])})


def measure(workdir: str, dataset: Any, truth: Truth, guidance: float, features: Any) -> tuple[dict[str, Any], Any]:
    """(measures, videos by (split, kind)) of a model."""
    from vdit.evaluation.continuation import compare_continuations, continued
    from vdit.evaluation.generated import TEXT, text_to_video
    from vdit.generation import LatentGenerator
    from vdit.generation.restore import generator_of, load_run

    run = load_run(workdir)
    generator = generator_of(run)
    made: dict[tuple[str, str], list[np.ndarray]] = {}
    out: dict[str, Any] = {"workdir": workdir, "step": run.position.step, "flops": run.training_flops}
    for split in truth.shots:
        own = truth.chosen(split)
        frames = len(own.videos[0])
        made[split, "first_frame"] = continued(generator, own.clips)
        ways = {
            "model": made[split, "first_frame"],
            "repeated": [np.repeat(video[:1], frames, axis=0) for video in own.videos],
        }
        if isinstance(generator, LatentGenerator):
            ways["autoencoder"] = [generator.reconstruct(video) for video in own.videos]
        out[f"first_frame {split}"] = compare_continuations(ways, own.videos, generator.patch, features)
        settings = dataclasses.replace(TEXT, guidance=guidance)
        made[split, "text"] = text_to_video(generator, dataset, split, own.numbers, CAPTION, settings, frames)
        out[f"text {split}"] = of_text(made[split, "text"], split, truth, generator.patch, features)
    return out, made


def of_text(videos: list[np.ndarray], split: str, truth: Truth, block: Any, features: Any) -> dict[str, Any]:
    """What is measured of the videos made from the captions of a split."""
    from vdit.evaluation.generated import FRAME_INTERVAL
    from vdit.evaluation.intervals import bootstrap_mean
    from vdit.evaluation.metrics.distances import clip_features
    from vdit.evaluation.metrics.pictures import blockiness, motion
    from vdit.evaluation.metrics.retrieval import found_alike, ranks, similarities

    def share(found_E: np.ndarray, chance: float) -> dict[str, Any]:
        mean = bootstrap_mean(found_E.astype(float))
        return {"value": mean.mean, "interval": list(mean.interval), "chance": chance}

    train, val = truth.seen["train"], truth.seen["val"]
    seen, places = clip_features(videos, FRAME_INTERVAL, features), truth.sampled[split]
    own_rank = ranks(similarities(seen, [*train, *val]), places + (len(train) if split == "val" else 0))
    out: dict[str, Any] = {f"top{k}": share(own_rank < k, k / len(train + val)) for k in (1, 5)}
    if split == "val":
        alike = found_alike(similarities(seen, train), similarities(val, train), ALIKE)
        out["alike"] = share(alike, ALIKE / len(train))
    true = truth.chosen(split).videos
    for name, of in (("motion", motion), ("blockiness", lambda v: blockiness(v, block.height, block.width))):
        out[name] = {
            kind: float(np.mean([of(v) for v in clips])) for kind, clips in (("model", videos), ("true", true))
        }
    return out


COLUMNS = (("psnr", 2), ("psnr_gain", 2), ("ssim", 3), ("kernel", 3), ("blockiness", 3), ("motion", 2))
"""Measures of what continues a first frame, and their decimals."""
FINDS = (("train", "top1"), ("train", "top5"), ("val", "top1"), ("val", "top5"), ("val", "alike"))


def tables(results: list[dict[str, Any]]) -> str:
    """The measures as Markdown."""

    def show(value: dict[str, Any], digits: int) -> str:
        low, high = value["interval"]
        return f"{value['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    parts = []
    for split, name in (("val", "Held-out shots"), ("train", "Training shots")):
        ways = [(_label(result), result[f"first_frame {split}"]["model"]) for result in results]
        ways += [(way, own) for way, own in results[0][f"first_frame {split}"].items() if way != "model"]
        rows = [[way, *(show(own[key], digits) if key in own else "" for key, digits in COLUMNS)] for way, own in ways]
        parts += [f"{name}, first frame given:", table([name, *(key for key, _ in COLUMNS)], rows)]
    rows = []
    for result in results:
        for split, key in FINDS:
            own = result[f"text {split}"][key]
            rows.append([_label(result), f"{split} {key}", show(own, 2), f"{own['chance']:.3f}"])
        for split in ("train", "val"):
            for key in ("blockiness", "motion"):
                own = result[f"text {split}"][key]
                rows.append([_label(result), f"{split} {key}", f"{own['model']:.3f}", f"{own['true']:.3f}"])
    parts += ["From captions:", table(["model", "captions", "value", "chance, or the film's"], rows, (1,))]
    return "\n\n".join(parts)


def _label(result: dict[str, Any]) -> str:
    return f"{result['workdir']} ({result['flops']:.2g} FLOPs)"


def write_strip(path: str, shots: list[tuple[str, int]], truth: Truth, videos: list[Any]) -> None:
    """Of each shot the true clip, then what each model makes of its first frame, then of its caption."""
    blocks: list[np.ndarray] = []
    for split, number in shots:
        own = truth.chosen(split)
        if number not in own.numbers:
            raise UserError(f"--strip_shots={split}:{number} is none of the shots that are made: {own.numbers}")
        i = own.numbers.index(number)
        places = np.linspace(0, len(own.videos[i]) - 1, SHOWN).round().astype(int)
        rows = [own.videos[i], *(made[split, kind][i] for kind in ("first_frame", "text") for made in videos)]
        gap = [np.full((4, SHOWN * rows[0].shape[2], 3), 255, np.uint8)] * bool(blocks)
        blocks += [*gap, np.concatenate([np.concatenate(list(video[places]), 1) for video in rows], 0)]
    Image.fromarray(np.concatenate(blocks)).save(path, optimize=True)


def main(argv: list[str]) -> None:
    no_arguments(argv)
    from vdit.parallel.runtime import initialise

    initialise()
    from data_pipelines.reading.store import Dataset
    from vdit.models.features.efficientnet import load_features

    values = flags.FLAGS
    try:
        chosen = [(split, int(number)) for split, _, number in (shot.partition(":") for shot in values.strip_shots)]
    except ValueError as error:
        raise UserError(f"--strip_shots={','.join(values.strip_shots)} is not of the form val:1,train:30") from error
    dataset, features = Dataset(values.data), load_features()
    truth = read_truth(dataset, values.frames, values.shots, features)
    found = [measure(workdir, dataset, truth, values.guidance, features) for workdir in values.workdirs]
    results = [result for result, _ in found]
    if values.out:
        Path(values.out).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    if values.page:
        put("film.md", "python -m benchmarks.film --page", tables(results))
    if values.strip:
        write_strip(values.strip, chosen, truth, [made for _, made in found])
    print(tables(results))


if __name__ == "__main__":
    flags.DEFINE_list(
        "workdirs", ["runs/film-short", "weights/film"], "Runs or exported weights, from little compute to much."
    )
    flags.DEFINE_string("data", "data/film-112x64", "Data set of pixels with the shots.")
    flags.DEFINE_integer("frames", 17, "Frames of a clip.", lower_bound=2)
    flags.DEFINE_integer("shots", 0, "Training shots that are made, spread evenly; 0 = all.", lower_bound=0)
    flags.DEFINE_float("guidance", 3.0, "Of text to video.")
    flags.DEFINE_string("strip", "", "PNG of true clips, first frames continued, and captions.")
    flags.DEFINE_list("strip_shots", ["val:1", "train:30", "train:80"], "Shots of the strip, split:number.")
    flags.DEFINE_bool("page", False, "Write the tables into docs/film.md.")
    flags.DEFINE_string("out", "", "JSON file to write; empty = none.")
    run_main(main)
