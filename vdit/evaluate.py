"""Evaluates a run: `python -m vdit.evaluate --workdir=W [--measures=...] [--json]`.

Videos of any model in the layout of Physics-IQ: --measures=motion_masks --videos=FOLDER[,FOLDER] --real=FOLDER.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import flags

from vdit.command.progress_bar import COMPILING, ProgressBar
from vdit.command.run import no_arguments, run_main
from vdit.config import Config
from vdit.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
DATA = flags.DEFINE_string("data", None, "Data set, if it has moved since training.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to evaluate; default: the newest.")
MEASURES = flags.DEFINE_list(
    "measures",
    ["loss", "velocity"],
    "loss: validation loss. velocity: error of continued physics clips, in and out of distribution. adherence: whether "
    "physics clips show what their captions say. likeness: PSNR and SSIM of clips of which frames are given. distance: "
    "kernel and Frechet distance of frames' EfficientNet-Lite0 features from those of true clips. motion_masks: the "
    "four measures of Physics-IQ, of continued clips or of --videos. Of an autoencoder: "
    "loss, PSNR and SSIM of the clips it gives back, and with distance the kernel distance.",
)
INCEPTION = flags.DEFINE_string(
    "inception", None, "Weights of the FID's Inception v3 (.pth or .safetensors): also measure FID and KID."
)
I3D = flags.DEFINE_string("i3d", None, "Weights of I3D on Kinetics-400 RGB (.pth or .safetensors): also measure FVD.")
CLIPS = flags.DEFINE_integer("clips", 64, "Clips a split that are generated for each measure.", lower_bound=2)
VIDEOS = flags.DEFINE_list(
    "videos",
    None,
    "Folders of generated videos in the layout of Physics-IQ, one for each seed: measured in place of a run.",
)
REAL = flags.DEFINE_string("real", None, "Folder of the real videos, two takes of each, at the frame rate of --videos.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if VIDEOS.value or REAL.value:
        found = evaluate_videos()
        print(json.dumps(found) if JSON.value else table(found))
        return
    if WORKDIR.value is None:
        raise UserError("--workdir is needed, the folder of a run: python -m vdit.evaluate --workdir=runs/physics")
    known = ("loss", "velocity", "adherence", "likeness", "distance", "motion_masks")
    for name in MEASURES.value:
        if name not in known:
            raise UserError(f"--measures={name} is not one of {', '.join(known)}")
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.record.workdir import check_dataset, read_config

    config = read_config(WORKDIR.value)
    initialise(cpu_devices_for(config))
    import jax

    if config.task == "autoencoder":
        found = evaluate_reconstruction(config)
        print(json.dumps(found) if JSON.value else table(found))
        return
    from data_pipelines.reading.mixture import open_data
    from data_pipelines.reading.training_data import validation_data
    from vdit.evaluation.validation import evaluate_run
    from vdit.generation.restore import generator_of, load_run
    from vdit.parallel.mesh import use_mesh

    compared = features()
    run = load_run(WORKDIR.value, STEP.value, DATA.value)
    dataset = open_data(run.config.data)
    check_dataset(run.workdir, run.config.data.path, dataset.meta)
    result: dict[str, Any] = {"step": run.position.step}
    if "loss" in MEASURES.value:
        splits = validation_data(dataset, run.config.data)
        examples = sum(dataset.size(split) for split in splits)
        with use_mesh(run.mesh), ProgressBar("validation loss", "example", examples, note=COMPILING) as bar:
            result |= evaluate_run(run, splits, bar.advance)
    if compared or set(MEASURES.value) - {"loss"}:
        from vdit.evaluation.generated import measure

        split = run.config.data.split
        with ProgressBar("generating clips", "step", note=COMPILING) as bar:
            generator = generator_of(run, bar.move_to)
            for part in dataset.datasets:
                found = measure(generator, part, split, MEASURES.value, CLIPS.value, compared)
                result |= found if len(dataset.datasets) == 1 else {part.meta["source"]: found}
    if jax.process_index() == 0:
        print(json.dumps(result) if JSON.value else table(result))


def evaluate_videos() -> dict[str, Any]:
    """The measures of Physics-IQ of folders of videos."""
    if not (VIDEOS.value and REAL.value) or MEASURES.value != ["motion_masks"] or WORKDIR.value:
        raise UserError("videos are measured by --measures=motion_masks --videos=FOLDER[,FOLDER] --real=FOLDER alone")
    from vdit.evaluation.physics_iq import evaluate_folders

    with ProgressBar("motion masks", "scene") as bar:
        return {
            "motion_masks": evaluate_folders([Path(folder) for folder in VIDEOS.value], Path(REAL.value), bar.move_to)
        }


def features() -> dict[str, Any]:
    """What the flags say that distances are measured by; files of weights are read before anything is generated."""
    from vdit.evaluation import generated

    out = {}
    if "distance" in MEASURES.value:
        out["distance"] = generated.lite_features()
    if INCEPTION.value:
        out["inception"] = generated.inception_features(INCEPTION.value)
    if I3D.value:
        out["i3d"] = generated.i3d_features(I3D.value)
    return out


def evaluate_reconstruction(config: Config) -> dict[str, Any]:
    """Reconstruction of the splits an autoencoder was not trained on; "distance" adds the kernel distance."""
    from data_pipelines.reading.mixture import open_data
    from vdit.evaluation.reconstruction import evaluate_autoencoder
    from vdit.models.features import efficientnet

    if STEP.value is not None:
        raise UserError("an autoencoder run keeps the weights of its last evaluation only; leave --step out")
    dataset = open_data(dataclasses.replace(config.data, path=DATA.value or config.data.path))
    observe = efficientnet.load_features() if "distance" in MEASURES.value else None
    return evaluate_autoencoder(WORKDIR.value, dataset, config.data.split, observe)


def table(values: dict[str, Any], indent: str = "") -> str:
    """A nested dictionary as indented lines."""
    lines = []
    for name, value in values.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", table(value, indent + "  ")]
        else:
            shown = f"{value:.4f}" if isinstance(value, float) else value
            if isinstance(value, list):
                shown = "[" + ", ".join(f"{x:.4f}" for x in value) + "]"
            lines.append(f"{indent}{name:<24} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
