"""docs/planner.md, its comparison: our step beside the published one of Wan 2.1 14B in MaxDiffusion.

    python -m benchmarks.planner

Compiles configs/vdit_10b.py for v5p:2x2x1 with full recomputation, as it is and with as much matrix work a token as
Wan 2.1 14B, and writes the table between the marks in docs/planner.md.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from benchmarks import pages
from configs import vdit_10b
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, MeshConfig
from vdit.config_dict import build

TOPOLOGY = "v5p:2x2x1"
PUBLISHED_SECONDS = 36.0
"""A step of Wan 2.1 14B on v5p-8 (4 chips), batch 1, 81 frames of 720x1280, README of AI-Hypercomputer/maxdiffusion:
"completed step: 5, seconds: 36.008, TFLOP/s/device: 135.895"."""

WAN = {
    "matmul": 4.60,
    "copies": 2.23,
    "elementwise": 1.17,
    "slices": 0.35,
    "matmuls": 11,
    "peak_attention": 14.09,
    "hbm": 42.0,
    "all-gather": 187.5,
    "all-reduce": 57.7 + 26.7,
    "all-to-all": 1.6,
    "ratio": 2.1,
}
"""That step compiled with the same compiler and read in the same way (cycles x trip counts): seconds, GiB, and products
of attention."""

WAN_FEED_FORWARD = 3.7
"""Wan's block has 4 d^2 weights of self-attention, 2 d^2 of cross-attention that every patch goes through, and 5.4 d^2
of feed-forward; ours has no cross-attention, so 2 d^2 more of feed-forward make it equal."""


def config_of(feed_forward: float, keep_weights: bool) -> Config:
    """vdit_10b on four chips: one row, split over them, all activations recomputed."""
    config = build(vdit_10b.get_config().to_dict(), Config)
    return dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, feed_forward=feed_forward, remat="blocks", keep_weights=keep_weights),
        data=dataclasses.replace(config.data, rows_per_step=1),
        mesh=MeshConfig(1, 1, 4, 1),
    )


def measure(config: Config) -> dict[str, Any]:
    """The plan, and how often attention goes over its blocks."""
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning import cost as costs
    from vdit.planning import estimate, hlo
    from vdit.planning.chips import CHIPS
    from vdit.planning.compile import compile_step
    from vdit.planning.result import plan

    chip, rows = CHIPS["v5p"], row_lengths(config)
    assumed = estimate.Assumptions(estimate.EXPECTED_EFFICIENCY, chip.link, chip.dcn, chip.price)
    values = plan(config, TOPOLOGY, 1, rows, assumed, 1)[0]
    program = compile_step(config, TOPOLOGY, 1, rows.interface, rows.pixels)
    matmuls = estimate.executed_matmuls(config, costs.read(hlo.parse(program.hlo)))
    peak = values["seconds"]["expected"]["attention"] * assumed.attention_efficiency[1]
    return {**values, "matmuls": matmuls, "peak_attention": peak}


def table(ours: dict[str, Any], equal: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    columns = [_ours(ours), _ours(equal)]
    outside = sum(WAN[part] for part in ("matmul", "copies", "elementwise", "slices"))
    wan = {
        "matrix products outside attention": f"{WAN['matmul']:.2f} s",
        "changes of layout": f"{WAN['copies']:.2f} s",
        "elementwise": f"{WAN['elementwise']:.2f} s",
        "slices and padding": f"{WAN['slices']:.2f} s",
        "**outside attention**": f"**{outside:.2f} s**",
        "over the ideal of its matrix products": f"{WAN['ratio']:.2f}",
        "products of attention": f"{WAN['matmuls']:.0f}",
        "attention at the peak": f"{WAN['peak_attention']:.2f} s",
        "all-gather": f"{WAN['all-gather']:.1f} GiB",
        "all-reduce and reduce-scatter": f"{WAN['all-reduce']:.1f} GiB",
        "all-to-all": f"{WAN['all-to-all']:.1f} GiB",
        "HBM a chip": f"{WAN['hbm']:.0f} GiB",
        "**a step**": f"**{PUBLISHED_SECONDS} s, measured**",
    }
    head = ["by the compiler's cycles", "Wan 2.1 14B", "equal to it", "vdit_10b"]
    rows = [[name, value, columns[1][name], columns[0][name]] for name, value in wan.items()]
    implied = WAN["peak_attention"] / (PUBLISHED_SECONDS - outside)
    return "\n".join(
        [
            pages.table(head, rows),
            "",
            f"If all of Wan's step that is not attention takes its {outside:.2f} s, attention takes "
            f"{PUBLISHED_SECONDS - outside:.1f} s, which is {implied:.2f} of the peak.",
        ]
    )


def _ours(values: dict[str, Any]) -> dict[str, str]:
    seconds, moved = values["seconds"]["expected"], values["collectives"]

    def gib(*kinds: str) -> str:
        return f"{sum(moved[kind]['gib'] for kind in kinds if kind in moved):.1f} GiB"

    outside = sum(seconds[part] for part in ("matmul", "copies", "elementwise", "slices"))
    low, high = values["step_seconds_low"], values["step_seconds_high"]
    return {
        "matrix products outside attention": f"{seconds['matmul']:.2f} s",
        "changes of layout": f"{seconds['copies']:.2f} s",
        "elementwise": f"{seconds['elementwise']:.2f} s",
        "slices and padding": f"{seconds['slices']:.2f} s",
        "**outside attention**": f"**{outside:.2f} s**",
        "over the ideal of its matrix products": f"{values['cycles_over_matmul_cycles']:.2f}",
        "products of attention": f"{values['matmuls']:.0f}",
        "attention at the peak": f"{values['peak_attention']:.2f} s",
        "all-gather": gib("all-gather"),
        "all-reduce and reduce-scatter": gib("all-reduce", "reduce-scatter"),
        "all-to-all": gib("all-to-all"),
        "HBM a chip": f"{values['hbm_gib_per_chip']:.0f} GiB",
        "**a step**": f"**{values['step_seconds']:.1f} s, estimated ({low:.1f} – {high:.1f})**",
    }


def main(argv: list[str]) -> None:
    no_arguments(argv)
    # There is room for gathered weights beside 10b, not beside the larger one.
    text = table(measure(config_of(2.7, True)), measure(config_of(WAN_FEED_FORWARD, False)))
    pages.put("planner.md", "python -m benchmarks.planner", text)
    print(text)


if __name__ == "__main__":
    run_main(main)
