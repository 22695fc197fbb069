"""What weights/balls reaches on clips that it has not seen: `python -m benchmarks.balls [--keep]`.

Clips are drawn by the simulator with another seed than the data set's, so no data set is needed. --keep writes the
table into the card.
"""

from __future__ import annotations

from typing import Any

from absl import flags

from benchmarks import pages
from vdit.command.run import no_arguments, run_main

FOLDER = "weights/balls"
COMMAND = "python -m benchmarks.balls --keep"
GUIDANCE = (1.0, 2.0, 3.0, 6.0)


def measure(clips: int, seed: int) -> list[list[str]]:
    """Rows of a table: what is given, what is measured, its value with a 95% interval over clips, and its baseline."""
    import numpy as np

    from data_pipelines.sources.physics.clips import make_clip
    from data_pipelines.sources.physics.world import parse_world
    from vdit.evaluation.balls.adherence import adherence
    from vdit.evaluation.balls.baselines import frozen_error
    from vdit.evaluation.balls.physics import velocity_error
    from vdit.evaluation.balls.physics_task import STEPS
    from vdit.evaluation.intervals import bootstrap_mean
    from vdit.generation import Request
    from vdit.generation.restore import generator_of, load_run
    from vdit.models.text.text_encoders import load_text_encoder

    generator, encoder, world = generator_of(load_run(FOLDER)), load_text_encoder("minilm"), parse_world("captioned")

    def said(values: Any, form: str) -> str:
        found = bootstrap_mean(np.asarray(values, np.float64))
        low, high = (form.format(end) for end in found.interval)
        return f"{form.format(found.mean)} ({low} to {high})"

    rows = []
    for split, title in (("val", "three frames"), ("ood", "three frames, slower, faster or smaller balls")):
        drawn = [make_clip(seed, split, i, world) for i in range(clips)]
        texts = encoder.encode([clip.captions["short"] for clip in drawn])
        pairs = list(zip(drawn, texts, strict=True))
        videos = generator.generate(
            [
                Request(text, *clip.video_TYXC.shape[:3], clip.fps, clip.id % 2**31, clip.video_TYXC[:3])
                for clip, text in pairs
            ],
            steps=STEPS,
        )
        found = [velocity_error(video, clip.truth(), 3) for video, clip in zip(videos, drawn, strict=True)]
        frozen = np.mean([frozen_error(clip.video_TYXC, clip.truth(), 3).error for clip in drawn])
        errors = said([each.error for each in found], "{:.2f}")
        rows.append([title, "velocity error, units/s", errors, f"frozen ball {frozen:.2f}"])
        rows.append([title, "balls lost", said([each.lost for each in found], "{:.1%}"), ""])
        if split != "val":
            continue
        for guidance in GUIDANCE:
            videos = generator.generate(
                [Request(text, *clip.video_TYXC.shape[:3], clip.fps, clip.id % 2**31) for clip, text in pairs],
                **{"steps": 20, "sampler": "dpm++", "guidance": guidance},
            )
            shown = [adherence(video, clip.captions["short"]) for video, clip in zip(videos, drawn, strict=True)]
            for name in ("colours", "directions"):
                value = said([getattr(each, name) for each in shown], "{:.0%}")
                rows.append([f"a caption, guidance {guidance:g}", f"{name} as asked for", value, ""])
    return rows


def main(argv: list[str]) -> None:
    from vdit.parallel.runtime import initialise

    no_arguments(argv)
    initialise()
    head = ["given", "measured", "value (95% interval over clips)", "beside it"]
    text = pages.table(head, measure(flags.FLAGS.clips, flags.FLAGS.seed), words=(1, 2, 3))
    print(text)
    if flags.FLAGS.keep:
        pages.put(f"../{FOLDER}/README.md", COMMAND, text)


if __name__ == "__main__":
    flags.DEFINE_integer("clips", 128, "Clips of each measure.", lower_bound=2)
    flags.DEFINE_integer("seed", 1, "Of the simulated clips; data sets are built with 0.")
    flags.DEFINE_bool("keep", False, "Write the table into the card.")
    run_main(main)
