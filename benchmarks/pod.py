"""What the TPU compiler says of the step on slices: `python -m benchmarks.pod [--what=depth,weak,pod]`.

depth: time to compile 32 layers over that of 8, and FLOPs outside attention over those of the model, without remat.
weak:  bytes of collectives per chip and step on 64, 512 and 4,096 chips of v5p at one row per chip.
pod:   the 10b size on v5p:8x8x8, rows of 75,776 slots, attention outputs kept: MFU at an attention efficiency of 0.60.

Nothing is run and no TPU is needed; figures are those of `python -m vdit.plan`, which counts them. Each is written into
docs/planner.md. The 10b size on four chips: benchmarks.planner.
"""

from __future__ import annotations

import dataclasses
import importlib
import time
from typing import Any

from absl import flags

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import Config, MeshConfig
from vdit.config_dict import build
from vdit.errors import UserError

WHAT = flags.DEFINE_list("what", ["depth", "weak", "pod"], "Which figures.")

Row = tuple[str, str, str]
"""A figure's name, the figure, and its target with whether it is met."""


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
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning.chips import chip_of
    from vdit.planning.estimate import EXPECTED_EFFICIENCY, Assumptions
    from vdit.planning.result import plan as plan_of

    chip = chip_of(topology)
    assumed = Assumptions((efficiency,) * 3 if efficiency else EXPECTED_EFFICIENCY, chip.link, chip.dcn, chip.price)
    return plan_of(config, topology, 1, row_lengths(config), assumed, config.data.rows_per_step)[0]


def gib(values: dict[str, Any]) -> float:
    return sum(kind["gib"] for kind in values["collectives"].values())


def judged(name: str, value: float, target: pages.Target) -> Row:
    """A figure beside its target."""
    return name, f"{value:.3f}", target.verdict(value)


def depth() -> list[Row]:
    """Processor time, as others may be at work; the first compilation of a process, which is slower, does not count."""
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning import compile as compiling

    def config(layers: int) -> Config:
        return size("vdit_b", MeshConfig(1, 4, 1, 1), 4, depth=layers, remat="none")

    seconds = {}
    for layers in (4, 8, 32):
        rows, start = row_lengths(config(layers)), time.process_time()
        compiling._compile(config(layers), "v5p:2x2x1", 1, rows.interface, rows.pixels)
        seconds[layers] = time.process_time() - start
    flops = plan(config(32), "v5p:2x2x1")["compiled_over_model_flops_outside_attention"]
    return [
        *((f"processor time to compile {layers} layers", f"{seconds[layers]:.1f} s", "") for layers in (8, 32)),
        judged("32 layers over 8", seconds[32] / seconds[8], pages.Target(1.2, most=True)),
        judged("FLOPs outside attention, compiled over the model's", flops, pages.Target(1.05, most=True)),
    ]


def weak() -> list[Row]:
    found = {}
    for topology, chips in (("v5p:4x4x4", 64), ("v5p:8x8x8", 512), ("v5p:16x16x16", 4096)):
        found[chips] = gib(plan(size("vdit_b", MeshConfig(chips // 64, 64, 1, 1), chips), topology))
    spread = max(found.values()) / min(found.values())
    return [
        *((f"collectives of a chip and step on {chips:,} chips", f"{x:.3f} GiB", "") for chips, x in found.items()),
        judged("most over least", spread, pages.Target(1.1, most=True)),
    ]


def pod() -> list[Row]:
    config = size("vdit_10b", MeshConfig(-1, 16, 4, 1), 128, remat="attention", keep_weights=True)
    values = plan(config, "v5p:8x8x8", 0.60)
    hbm = f"{values['hbm_gib_per_chip']:.1f} of {values['hbm_gib_limit']} GiB"
    return [
        ("HBM of a chip", hbm, "" if values["fits"] else "does not fit"),
        ("a step", f"{values['step_seconds']:.1f} s", ""),
        *((f"of it {kind}", f"{x:.2f} s", "") for kind, x in values["seconds"]["expected"].items()),
        ("collectives of a chip and step", f"{gib(values):.1f} GiB", ""),
        judged("MFU", values["mfu"], pages.Target(0.48)),
    ]


FIGURES = {"depth": depth, "weak": weak, "pod": pod}


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if unknown := [name for name in WHAT.value if name not in FIGURES]:
        raise UserError(f"--what={unknown[0]} is not one of {', '.join(FIGURES)}")
    for name in WHAT.value:
        text = pages.table(["", "", ""], FIGURES[name](), words=(2,))
        print(f"{name}:\n{text}", flush=True)
        pages.put("planner.md", f"python -m benchmarks.pod --what={name}", text)


if __name__ == "__main__":
    run_main(main)
