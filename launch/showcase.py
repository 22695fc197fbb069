"""An animated grid of what a model of the balls makes: `python -m launch.showcase weights/balls --out=docs/figures`.

A row is a clip that the model has not seen, drawn by the simulator; a column is what the model is given of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from absl import flags

from vdit.command.run import run_main
from vdit.errors import UserError

WAYS = ("true clip", "its caption", "its first frame", "its first three", "its last two", "all but a box")
"""Columns: the true clip, and what is given of it."""


def main(argv: list[str]) -> None:
    values = flags.FLAGS
    if len(argv) != 2:
        raise UserError("give the folder of a run or of weights: python -m launch.showcase weights/balls")
    from data_pipelines.sources.physics.clips import make_clip
    from data_pipelines.sources.physics.world import parse_world
    from vdit.generation.restore import generator_of, load_run
    from vdit.models.text.text_encoders import load_text_encoder
    from vdit.parallel.runtime import initialise
    from vdit.render import animation

    initialise()
    run = load_run(argv[1])
    world = parse_world(values.world)
    clips = [make_clip(values.seed, "val", i, world) for i in range(values.clips)]
    encoder = load_text_encoder(run.meta["text_encoder"]["name"])
    texts = encoder.encode([clip.captions["short"] for clip in clips])
    requests = [request for clip, text in zip(clips, texts, strict=True) for request in _requests(clip, text)]
    videos = iter(generator_of(run).generate(requests, steps=values.steps, guidance=values.guidance))
    rows = [(clip.captions["short"], [clip.video_TYXC, *(next(videos) for _ in WAYS[1:])]) for clip in clips]
    path = Path(values.out) / "balls.gif"
    path.parent.mkdir(parents=True, exist_ok=True)
    animation.write_gif(path, animation.grid(WAYS, rows, scale=6), world.fps)
    print(path)


def _requests(clip: Any, text_ME: Any) -> list[Any]:
    """A request for each way but the true clip."""
    import numpy as np

    from vdit.generation import Request

    video_TYXC = clip.video_TYXC
    frames, height, width, _ = video_TYXC.shape
    tail_TYX = np.zeros(video_TYXC.shape[:3], bool)
    tail_TYX[-2:] = True
    box_TYX = np.ones(video_TYXC.shape[:3], bool)
    box_TYX[2:, 4:-4, 4:-4] = False
    given: tuple[dict[str, Any], ...] = ({}, {"given_TYXC": video_TYXC[:1]}, {"given_TYXC": video_TYXC[:3]})
    masked = tuple({"given_TYXC": video_TYXC, "mask_TYX": mask} for mask in (tail_TYX, box_TYX))
    return [Request(text_ME, frames, height, width, clip.fps, clip.id % 2**31, **way) for way in (*given, *masked)]


if __name__ == "__main__":
    flags.DEFINE_string("out", "docs/figures", "Folder for balls.gif.")
    flags.DEFINE_string("world", "captioned", "Clips, as --world= of data_pipelines.build.")
    flags.DEFINE_integer("clips", 3, "Rows.", lower_bound=1)
    flags.DEFINE_integer("seed", 1, "Of the clips; data sets are built with 0.")
    flags.DEFINE_integer("steps", 12, "Denoising steps.", lower_bound=1)
    flags.DEFINE_float("guidance", 3.0, "Scale of guidance where a caption is given.")
    run_main(main)
