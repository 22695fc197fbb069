"""docs/planner.md, its calibration: steps that others measured beside plans of equal configurations of ours.

    python -m benchmarks.calibration            compile what is missing, then write the table in docs/planner.md
    python -m benchmarks.calibration --write    compile nothing, write the table from what has been compiled

A compilation takes some minutes of processor time; the plan is kept in benchmarks/calibration.json, which is removed to
plan again with other sources or versions. Equal means: as much matrix work a token as Wan 14B, the same row, as many
devices a row, the same recomputation. The program is ours: the table shows how far a plan can be from a step.
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from absl import flags

from benchmarks import pages
from benchmarks.planner import PUBLISHED_SECONDS, WAN_FEED_FORWARD, config_of
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, MeshConfig
from vdit.io.files import write_json

WRITE = flags.DEFINE_bool("write", False, "Compile nothing; write the page from benchmarks/calibration.json.")

RESULTS = Path(__file__).with_suffix(".json")


@dataclasses.dataclass(frozen=True)
class Measured:
    """A step of Wan 14B on rows of 75,600 tokens (81 frames of 720x1280), four devices a row.

    Attributes:
      what: of which program.
      seconds: of a step.
      topology: the slice.
      rows: of a step.
      remat: what is recomputed: "blocks" all, "attention" all but attention.
      source: where it is published.
    """

    what: str
    seconds: float
    topology: str
    rows: int
    remat: str
    source: str


PULL_487 = "pull request 487 of AI-Hypercomputer/maxdiffusion, 2026-09"
MEASURED = (
    Measured(
        *("Wan 2.1 in MaxDiffusion", PUBLISHED_SECONDS, "v5p:2x2x1", 1, "blocks"),
        "README of AI-Hypercomputer/maxdiffusion, v5p-8",
    ),
    Measured("Wan 2.2 in MaxDiffusion, before", 39.70, "tpu7x:2x4x4", 16, "blocks", f"{PULL_487}, tpu7x-64"),
    Measured(
        *("Wan 2.2 in MaxDiffusion, after its kernels were tuned", 13.57, "tpu7x:2x4x4", 16, "attention"),
        f"{PULL_487}, tpu7x-64",
    ),
)
"""tpu7x-64 is 64 devices on 32 chips. Four devices a row: 384.12 TFLOP/s a device for 13.57 s are 5,213 TFLOP a device,
about a quarter of the 19,573 that the same project counts for one row on v5p-8 (135.895 TFLOP/s, 36.008 s, 4 chips)."""


def equal_config(measured: Measured) -> Config:
    """Ours with as much matrix work a token, on the same devices."""
    config = config_of(WAN_FEED_FORWARD, False)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, remat=measured.remat),
        data=dataclasses.replace(config.data, rows_per_step=measured.rows),
        mesh=MeshConfig(1, measured.rows, 4, 1),
    )


def results() -> dict[str, dict[str, float | None]]:
    """Seconds of the plans that have been made: by measurement, {"low", "expected", "high"}; None does not fit."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def compile_plan(measured: Measured) -> dict[str, float | None]:
    """Compiles the equal configuration, or takes it from the planner's cache."""
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning.chips import chip_of
    from vdit.planning.estimate import EXPECTED_EFFICIENCY, Assumptions
    from vdit.planning.result import plan

    config, chip = equal_config(measured), chip_of(measured.topology)
    assumed = Assumptions(EXPECTED_EFFICIENCY, chip.link, chip.dcn, chip.price)
    values = plan(config, measured.topology, 1, row_lengths(config), assumed, 1)[0]
    names = {"low": "step_seconds_low", "expected": "step_seconds", "high": "step_seconds_high"}
    return {name: values[key] for name, key in names.items()}


def text_of(found: dict[str, dict[str, float | None]]) -> str:
    """The table, and the one line that says how wrong plans can be."""
    rows, ratios = [], []
    for measured in MEASURED:
        seconds, ratio = found.get(measured.what), ""
        if seconds is None:
            planned = "not compiled"
        elif seconds["expected"] is None:
            planned = "does not fit"
        else:
            planned = "{expected:.1f} s ({low:.1f} – {high:.1f})".format(**seconds)
            ratios.append(measured.seconds / seconds["expected"])
            ratio = f"{ratios[-1]:.2f}"
        rows.append([measured.what, measured.topology, f"{measured.seconds:.1f} s", planned, ratio, measured.source])
    head = ["a step of", "slice", "measured", "plan of an equal one of ours", "measured over plan", "source"]
    span = f"{min(ratios):.2f}" + (f" to {max(ratios):.2f}" if len(ratios) > 1 else "")
    line = (
        f"**How wrong a plan can be: these measured steps took {span} times as long as the plan of an equal "
        "configuration of ours expects. No step of ours has been measured.**"
    )
    return f"{pages.table(head, rows, words=(1, 5))}\n\n{line}"


def main(argv: list[str]) -> None:
    no_arguments(argv)
    found = results()
    for measured in MEASURED:
        if measured.what not in found and not WRITE.value:
            found[measured.what] = compile_plan(measured)
            write_json(RESULTS, found)
    text = text_of(found)
    pages.put("planner.md", "python -m benchmarks.calibration", text)
    print(text)


if __name__ == "__main__":
    run_main(main)
