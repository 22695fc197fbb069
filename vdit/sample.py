"""Samples videos: `python -m vdit.sample --workdir=W --prompt="..." --size=WxH --frames=N --out=x.mp4`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from absl import flags
from tqdm import tqdm

from vdit import __version__
from vdit.config import UserError, no_arguments, run_main
from vdit.patches import Patch

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
PROMPT = flags.DEFINE_string("prompt", "", "What to show; empty for no caption.")
SIZE = flags.DEFINE_string("size", None, "Width x height in pixels, such as 40x32; default: of --image, or 32x32.")
FRAMES = flags.DEFINE_integer("frames", 17, "Number of frames: 1 + k times the patch's.")
FPS = flags.DEFINE_float("fps", None, "Frames per second; default: of the training data.", lower_bound=0.1)
OUT = flags.DEFINE_string("out", None, "File to write, .mp4; a strip of frames is written beside it as .png.")
IMAGE = flags.DEFINE_string("image", None, "First frame: an image file.")
STEPS = flags.DEFINE_integer("steps", 20, "Denoising steps.", lower_bound=1)
GUIDANCE = flags.DEFINE_float("guidance", 1.5, "Scale of classifier-free guidance; 1 is none.")
SAMPLER = flags.DEFINE_enum("sampler", "heun", ["euler", "heun"], "Order 1 or 2.")
SEED = flags.DEFINE_integer("seed", 0, "Of the noise.", lower_bound=0)
STEP = flags.DEFINE_integer("step", None, "Checkpoint to sample from; default: the newest.")
SCALE = flags.DEFINE_integer("scale", 4, "Side of the square that shows one pixel in the files.", lower_bound=1)


def parse_size(text: str, patch: Patch) -> tuple[int, int]:
    """(height, width) of "WxH".

    Raises:
      UserError: if it is malformed or not on the patch grid; the message names the nearest size that is.
    """
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if not match:
        raise UserError(f"--size={text} is not of the form WIDTHxHEIGHT, such as 40x32")
    width, height = int(match[1]), int(match[2])
    near = tuple(max(1, round(side / step)) * step for side, step in ((width, patch.width), (height, patch.height)))
    if (width, height) != near:
        raise UserError(
            f"--size={text} is not a multiple of the {patch.width}x{patch.height} patch; take {near[0]}x{near[1]}"
        )
    return height, width


def check_frames(frames: int, patch: Patch) -> None:
    """Raises UserError unless frames is 1 + k * patch.time, naming the nearest that is."""
    if frames < 1 or (frames - 1) % patch.time:
        nearest = 1 + max(0, round((frames - 1) / patch.time)) * patch.time
        raise UserError(f"--frames={frames} is not 1 + k*{patch.time}; take {nearest}")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if WORKDIR.value is None or OUT.value is None:
        raise UserError(f"{'--out' if WORKDIR.value else '--workdir'} is needed")
    out = Path(OUT.value)
    if out.suffix != ".mp4" or not out.parent.is_dir():
        raise UserError(f"--out={out} should be an .mp4 file in a folder that exists")
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.training.workdir import read_config

    initialise(cpu_devices_for(read_config(WORKDIR.value)))
    import numpy as np

    from vdit import video_io
    from vdit.generation import Request
    from vdit.models.text_encoders import load_text_encoder
    from vdit.training.restore import generator_of, load_run

    run = load_run(WORKDIR.value, STEP.value)
    patch = Patch(*run.meta["patch"])
    check_frames(FRAMES.value, patch)
    given = None
    image = video_io.read_image(IMAGE.value) if IMAGE.value else None
    default = "32x32"
    if image is not None:
        sides = (
            max(1, round(side / step)) * step
            for side, step in zip(image.shape[1::-1], (patch.width, patch.height), strict=True)
        )
        default = "x".join(map(str, sides))
    height, width = parse_size(SIZE.value or default, patch)
    if image is not None:
        stretch = (width / height) / (image.shape[1] / image.shape[0])
        if not 0.8 < stretch < 1.25:
            whole = f"{image.shape[1]}x{image.shape[0]}"
            raise UserError(
                f"--size={width}x{height} would stretch --image of {whole} by {stretch:.2f}; take its aspect ratio"
            )
        given = video_io.resize(image, height, width)[None]
    encoder = load_text_encoder(run.meta["text_encoder"]["name"])
    if encoder.hash != run.meta["text_encoder"]["hash"]:
        raise UserError(
            f"{WORKDIR.value} was trained with other weights of {encoder.name}; use the version of vdit that did"
        )
    if PROMPT.value and encoder.name == "none":
        raise UserError(f"--prompt is of no use: {WORKDIR.value} was trained without captions; leave it out")
    text_ME = np.asarray(encoder.encode([PROMPT.value])[0], np.float32)
    fps = FPS.value or run.meta["fps"]
    request = Request(text_ME, FRAMES.value, height, width, fps, SEED.value, given)
    generator = generator_of(run)
    with tqdm(total=STEPS.value, unit="step", desc="denoising", disable=not sys.stderr.isatty()) as bar:
        [video] = generator.generate(
            [request],
            steps=STEPS.value,
            guidance=GUIDANCE.value,
            sampler=SAMPLER.value,
            progress=lambda done, _: bar.update(done - bar.n),
        )
    tags = {
        "prompt": PROMPT.value,
        "seed": str(SEED.value),
        "steps": str(STEPS.value),
        "guidance": str(GUIDANCE.value),
        "checkpoint": f"{run.workdir.name}@{run.position.step}",
        "software": f"vdit {__version__}",
    }
    video_io.write_mp4(out, video, fps, SCALE.value, tags)
    video_io.write_png(out.with_suffix(".png"), video_io.strip(video, scale=SCALE.value))
    print(f"{out} and {out.with_suffix('.png')}: {FRAMES.value} frames of {width}x{height} at {fps:g} frames/s")


if __name__ == "__main__":
    run_main(main)
