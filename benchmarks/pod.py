"""What the TPU compiler says of the step on slices: `python -m benchmarks.pod [--what=depth,weak,long,pod]`.

depth: time to compile 32 layers over that of 8, and FLOPs outside attention over those of the model, without remat.
weak:  bytes of collectives per chip and step on 64, 512 and 4,096 chips of v5p at one row per chip.
long:  the 10b size on one row of 75,776 slots over the four chips of v5p:2x2x1, all activations recomputed.
pod:   the 10b size on such rows on v5p:8x8x8, attention outputs kept: MFU at an attention efficiency of 0.60.

Nothing is run and no TPU is needed; figures are those of `python -m vdit.plan`, which counts them.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import time
from typing import Any

from absl import flags

from vdit.config import Config, MeshConfig, build, run_main

WHAT = flags.DEFINE_list("what", ["depth", "weak", "long", "pod"], "Which figures.")


def size(name: str, mesh: MeshConfig, rows: int, **model: Any) -> Config:
    """A named size on a mesh, with other fields of the model."""
    config = build(importlib.import_module(f"configs.{name}").get_config().to_dict())
    return dataclasses.replace(
        config,
        mesh=mesh,
        data=dataclasses.replace(config.data, rows_per_step=rows),
        model=dataclasses.replace(config.model, **model),
    )


def plan(config: Config, topology: str, efficiency: float = 0.0) -> dict[str, Any]:
    """What `vdit.plan` says; efficiency of attention, 0 for the planner's own."""
    from vdit.planning.chips import chip_of
    from vdit.planning.estimate import EXPECTED_EFFICIENCY, Assumptions
    from vdit.planning.result import plan as plan_of
    from vdit.planning.rows import rows_of

    chip = chip_of(topology)
    assumed = Assumptions((efficiency,) * 3 if efficiency else EXPECTED_EFFICIENCY, chip.link, chip.dcn, chip.price)
    return plan_of(config, topology, 1, rows_of(config), assumed, config.data.rows_per_step)[0]


def gib(values: dict[str, Any]) -> float:
    return sum(kind["gib"] for kind in values["collectives"].values())


def depth() -> dict[str, float]:
    """Processor time, as others may be at work; the first compilation of a process, which is slower, does not count."""
    from vdit.planning import compile as compiling
    from vdit.planning.rows import rows_of

    def config(layers: int) -> Config:
        return size("vdit_b", MeshConfig(1, 4, 1, 1), 4, depth=layers, remat="none")

    seconds = {}
    for layers in (4, 8, 32):
        rows, start = rows_of(config(layers)), time.process_time()
        compiling._compile(config(layers), "v5p:2x2x1", 1, rows.interface, rows.pixels)
        seconds[layers] = time.process_time() - start
    key = "compiled_over_model_flops_outside_attention"
    return {
        "seconds to compile 8 layers": seconds[8],
        "32 layers": seconds[32],
        "32 over 8": seconds[32] / seconds[8],
        "compiled over model FLOPs outside attention": plan(config(32), "v5p:2x2x1")[key],
    }


def weak() -> dict[str, float]:
    out = {}
    for topology, chips in (("v5p:4x4x4", 64), ("v5p:8x8x8", 512), ("v5p:16x16x16", 4096)):
        values = plan(size("vdit_b", MeshConfig(chips // 64, 64, 1, 1), chips), topology)
        out[f"GiB of collectives per chip and step on {chips} chips"] = gib(values)
    return out


def long() -> dict[str, Any]:
    config = size("vdit_10b", MeshConfig(1, 1, 4, 1), 1, remat="blocks", keep_weights=True)
    return {**picked(plan(config, "v5p:2x2x1")), "target": "cycles <= 1.6, GiB <= 136.5"}


def pod() -> dict[str, Any]:
    config = size("vdit_10b", MeshConfig(-1, 16, 4, 1), 128, remat="attention", keep_weights=True)
    return {**picked(plan(config, "v5p:8x8x8", 0.60)), "target": "mfu >= 0.48"}


def picked(values: dict[str, Any]) -> dict[str, Any]:
    """What is said of a plan."""
    names = (
        *("fits", "hbm_gib_per_chip", "hbm_gib_limit", "cycles_over_matmul_cycles", "attention_overhead"),
        *("compiled_over_model_flops", "step_seconds", "step_seconds_low", "step_seconds_high", "mfu"),
    )
    return {
        **{name: values[name] for name in names},
        "seconds": values["seconds"]["expected"],
        "GiB of collectives": gib(values),
        "of them": {kind: found["gib"] for kind, found in values["collectives"].items()},
    }


def main(argv: list[str]) -> None:
    del argv
    for name in WHAT.value:
        print(
            json.dumps({name: {"depth": depth, "weak": weak, "long": long, "pod": pod}[name]()}, indent=1), flush=True
        )


if __name__ == "__main__":
    run_main(main)
