"""What raises text adherence on physics clips: runs, and scales of guidance, in one table.

`python -m benchmarks.adherence --workdirs=A,B --guidance=1,3,6` generates videos from the captions of validation clips
with each run and each scale, from the same noise, and prints the shares that show what the caption says.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import flags

from vdit.command.run import no_arguments, run_main

WORKDIRS = flags.DEFINE_list("workdirs", None, "Folders of runs on physics clips.", required=True)
GUIDANCE = flags.DEFINE_list("guidance", ["1", "3", "6"], "Scales of classifier-free guidance.")
STEPS = flags.DEFINE_integer("steps", 20, "Denoising steps, of DPM-Solver++.")
CLIPS = flags.DEFINE_integer("clips", 128, "Videos of each run and scale.")
JSON = flags.DEFINE_bool("json", False, "Print JSON.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    from vdit.evaluation.generated import TEXT
    from vdit.parallel.runtime import initialise

    initialise()
    if not JSON.value:
        print(f"{CLIPS.value} videos; % of them that show what the caption says, and the 95% interval of all of it")
        print("run                           guidance     all              number  colours  directions", flush=True)
    results = []
    for workdir in WORKDIRS.value:
        for scale in map(float, GUIDANCE.value):
            settings = dataclasses.replace(TEXT, guidance=scale, steps=STEPS.value)
            results.append(
                {"run": Path(workdir).name, "guidance": scale, "steps": STEPS.value, **measure(workdir, settings)}
            )
            if not JSON.value:
                print(row(results[-1]), flush=True)
    if JSON.value:
        print(json.dumps(results))


def measure(workdir: str, settings: Any) -> dict[str, Any]:
    """Shares of a run's videos, see `vdit.evaluation.generated.adherence_of`."""
    from data_pipelines.reading.mixture import open_data
    from vdit.evaluation.generated import adherence_of, text_to_video
    from vdit.generation.restore import generator_of, load_run

    run = load_run(workdir)
    (dataset,) = open_data(run.config.data).datasets
    split = next(split for split in dataset.splits if split != run.config.data.split)
    numbers = list(range(min(CLIPS.value, len(dataset.index(split)))))
    videos = text_to_video(generator_of(run), dataset, split, numbers, settings=settings)
    found: dict[str, Any] = adherence_of(videos, dataset, split, numbers, settings=settings)["generated"]
    return found


def row(result: dict[str, Any]) -> str:
    """A line of the table."""
    low, high = result["everything"]["interval"]
    number, colours, directions = (100 * result[name]["value"] for name in ("number", "colours", "directions"))
    return (
        f"{result['run']:<30}{result['guidance']:8g} {100 * result['everything']['value']:7.1f} "
        f"({100 * low:.0f} to {100 * high:.0f}) {number:12.1f} {colours:8.1f} {directions:11.1f}"
    )


if __name__ == "__main__":
    run_main(main)
