"""Samples videos: `python -m vdit.sample --workdir=W --prompt="..." --size=WxH --frames=N --out=x.mp4`."""

from __future__ import annotations

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

from absl import flags

from vdit.command.progress_bar import COMPILING, ProgressBar
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
OUT = flags.DEFINE_string(
    "out",
    None,
    "File to write: .mp4, .gif, .png (a strip) or .npz; with --prompts the folder to write to, which is made.",
)
PROMPTS = flags.DEFINE_string(
    "prompts", None, "File with one JSON object a line, whose fields are the flags up to --seed."
)
PROMPT_FILES = flags.DEFINE_string(
    "prompt_files", "", "Folder below which files named in --prompts must lie; default: the folder of --prompts."
)

PROMPT = flags.DEFINE_string("prompt", "", "What to show; empty for no caption.")
NEGATIVE = flags.DEFINE_string("negative", "", "What guidance keeps away from; default: the missing caption.")
SIZE = flags.DEFINE_string(
    "size",
    "",
    "Width x height in pixels, such as 40x32; default: the one size trained on, or that of what is given, or 32x32.",
)
FRAMES = flags.DEFINE_integer("frames", 17, "Number of frames: 1 + k times the patch's; 1 is an image.")
IMAGE = flags.DEFINE_string("image", "", "First frame: an image file.")
LAST = flags.DEFINE_string("last", "", "Last frame: an image file. It is repeated to fill the last group of frames.")
HEAD = flags.DEFINE_string("head", "", "Clip that the video starts with: it is extended forward.")
TAIL = flags.DEFINE_string("tail", "", "Clip that the video ends with: it is extended backward.")
LOOP = flags.DEFINE_bool("loop", False, "End where it begins: at --image, or at an image that is made first.")
CONNECT = flags.DEFINE_string("connect", "", "A,B: from the end of clip A to the start of clip B.")
EDIT = flags.DEFINE_string("edit", "", "Clip to change; its length is taken.")
STRENGTH = flags.DEFINE_float("strength", 1.0, "How much --edit changes, in (0, 1].")
MASK = flags.DEFINE_string("mask", "", "What of --edit to generate: a box X0,Y0,X1,Y1 or a file that is white there.")
REFERENCE = flags.DEFINE_string("reference", "", "Images of what to show, separated by commas.")
STAGGER = flags.DEFINE_float("stagger", 0.0, "Denoise each group of frames this much later than the one before.")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise.", lower_bound=0)

FPS = flags.DEFINE_float("fps", None, "Frames per second; default: of the training data.", lower_bound=0.1)
WINDOW = flags.DEFINE_integer("window", None, "Frames denoised at once; longer videos are made window by window.")
STEPS = flags.DEFINE_integer("steps", 20, "Denoising steps.", lower_bound=1)
GUIDANCE = flags.DEFINE_float("guidance", 1.5, "Scale of classifier-free guidance; 1 is none.")
INTERVAL = flags.DEFINE_list("guidance_interval", ["0", "1"], "Diffusion times low,high between which guidance acts.")
RESCALE = flags.DEFINE_float("guidance_rescale", 0.0, "Share of the spread added by guidance that is taken back.")
SAMPLER = flags.DEFINE_enum("sampler", "heun", ["euler", "heun", "dpm++", "unipc"], "How to go from time to time.")
SCHEDULE = flags.DEFINE_enum(
    "schedule", "linear", ["linear", "cosine", "linear_quadratic"], "Which times to go through."
)
LORA = flags.DEFINE_multi_string(
    "lora", [], "Adapters to add to the weights: FILE or FOLDER, or FILE:SCALE for more or less of them; several times."
)
PARTNER = flags.DEFINE_string(
    "partner", "", "The other expert of a model of two: its workdir, export or published transformer folder."
)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to sample from; default: the newest.")
SCALE = flags.DEFINE_integer("scale", 4, "Side of the square that shows one pixel in the files.", lower_bound=1)
PREVIEW = flags.DEFINE_integer("preview", 0, "Write OUT.preview.png every so many evaluations.", lower_bound=0)


def requests_of_flags() -> list[Any]:
    """What is requested: one thing by flags, or one a line of --prompts for which the flags are defaults."""
    from vdit.generation.prompts import SampleRequest, read_sample_requests

    values: dict[str, Any] = {
        field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(SampleRequest) if field.name != "out"
    }
    out = Path(OUT.value or "")
    if PROMPTS.value is None:
        return [SampleRequest(**values, out=str(out))]
    return read_sample_requests(Path(PROMPTS.value), values, out, PROMPT_FILES.value)


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if WORKDIR.value is None or OUT.value is None:
        raise UserError(
            f"{'--out' if WORKDIR.value else '--workdir'} is needed: python -m vdit.sample "
            f"--workdir={WORKDIR.value or 'weights/balls'} --out={OUT.value or 'sample.mp4'}"
        )
    from vdit.generation.outputs import check_out
    from vdit.generation.request import Settings

    if PROMPTS.value is not None and Path(OUT.value).exists() and not Path(OUT.value).is_dir():
        raise UserError(f"--out={OUT.value} is a file; give a folder for the videos of --prompts")
    if FPS.value is not None and not math.isfinite(FPS.value):
        raise UserError(f"--fps={FPS.value} is not a finite number")
    samples = requests_of_flags()
    for sample in samples:
        check_out(Path(sample.out), made=PROMPTS.value is not None)
    try:
        interval = tuple(map(float, INTERVAL.value))
        low, high = interval
    except ValueError as error:
        raise UserError(f"--guidance_interval={','.join(INTERVAL.value)} is not two numbers low,high") from error
    settings = Settings(STEPS.value, SAMPLER.value, SCHEDULE.value, GUIDANCE.value, (low, high), RESCALE.value)
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.record.workdir import read_config

    initialise(cpu_devices_for(read_config(WORKDIR.value)))
    from vdit.generation.outputs import run_about
    from vdit.generation.restore import generator_of, load_run
    from vdit.generation.session import Session
    from vdit.models.lora_files import names_of, parse

    run = load_run(WORKDIR.value, STEP.value)
    loras = [parse(flag) for flag in LORA.value]
    about = run_about(run.workdir.name, run.position.step, run.config)
    if loras:
        about["lora"] = names_of(loras)
    generator = generator_of(run, loras=loras, partner=PARTNER.value)
    session = Session(generator, run.meta, about, settings, FPS.value, SCALE.value)
    start = time.monotonic()
    with ProgressBar("denoising", "evaluation") as bar:
        bar.show(COMPILING)  # where there is a terminal; a mistake that is found before stays one line
        for line in session.make(samples, WINDOW.value, bar.move_to, PREVIEW.value):
            bar.write(line)
    if len(samples) > 1:
        print(f"{len(samples)} videos in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    run_main(main)
