"""docs/scaling.md: every named size on TPU slices, compiled by the real TPU compiler.

    python -m benchmarks.scaling              compile what is missing or stale, then write docs/scaling.md
    python -m benchmarks.scaling --only=10b   of that, only lines whose name contains 10b
    python -m benchmarks.scaling --write      write docs/scaling.md from what has been compiled, compile nothing

Results are kept in benchmarks/scaling.json, a line at a time, so that it may be stopped and started again. A line is
stale when the sources that make the program (comments apart), or the versions of JAX and libtpu, have changed since.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

from absl import flags
from ml_collections import ConfigDict

from benchmarks import pages
from vdit.command.run import no_arguments, run_main
from vdit.config import ATTENTION_BLOCKS, Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.io.formatting import count

ONLY = flags.DEFINE_string("only", "", "Compile only lines whose name contains this.")
MINUTES = flags.DEFINE_float("minutes", None, "Begin no line after so many minutes.")
WRITE = flags.DEFINE_bool("write", False, "Compile nothing; write the page from benchmarks/scaling.json.")

RESULTS = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"


@dataclasses.dataclass(frozen=True)
class Line:
    """A size on a topology.

    Attributes:
      size: of configs/vdit_{size}.py, or "wan_ti2v_5b" or "wan_a14b", of configs/{size}.py.
      topology, slices: where.
      fsdp, context: mesh axes; replica takes the rest of the chips.
      remat: policy.
      keep: keep_weights.
      minute: rows of one 60-second clip of 832x480 at 24 frames/s instead of the config's clips.
      lora: adapters of rank 16 are trained instead of all weights.
    """

    size: str
    topology: str
    slices: int = 1
    fsdp: int = 1
    context: int = 1
    remat: str = "attention"
    keep: bool = False
    minute: bool = False
    lora: bool = False

    @property
    def name(self) -> str:
        """Names it among all lines."""
        slices = f"{self.slices}x" if self.slices > 1 else ""
        return f"{self.size}{'-minute' if self.minute else ''}{'-lora' * self.lora}@{slices}{self.topology}"

    @property
    def module(self) -> str:
        """Of its config."""
        return f"configs.{self.size}" if self.size.startswith("wan") else f"configs.vdit_{self.size}"


MINUTE = {"clips": ("1441x480x832",), "words": 512}
MINUTE_SLOTS = 565_248  # 563,160 patches, 512 words, and padding to a multiple of 16 x 512

SMALL = ("s", "b", "l", "xl")
TOPOLOGIES = ("v5e:16x16", "v6e:16x16", "v5p:8x8x8", "v5p:16x16x16")
LINES = [
    *(Line(size, topology, fsdp=32) for size in SMALL for topology in TOPOLOGIES),
    Line("xl", "v5e:16x16", slices=2, fsdp=32),
    Line("2b", "v5e:16x16", fsdp=128, context=2, remat="blocks"),
    Line("2b", "v6e:16x16", fsdp=128, context=2),
    Line("2b", "v5p:8x8x8", fsdp=64),
    Line("2b", "v5p:16x16x16", fsdp=64),
    Line("2b", "v6e:16x16", slices=4, fsdp=128, context=2),
    Line("5b", "v5e:16x16", fsdp=32, context=8, remat="blocks"),
    Line("5b", "v6e:16x16", fsdp=64, context=4, remat="blocks"),
    Line("5b", "v5p:8x8x8", fsdp=64, context=2),
    Line("5b", "v5p:16x16x16", fsdp=64, context=2),
    Line("10b", "v5e:16x16", fsdp=16, context=16, remat="blocks"),
    Line("10b", "v6e:16x16", fsdp=32, context=8, remat="blocks"),
    Line("10b", "v5p:8x8x8", fsdp=16, context=4, keep=True),
    Line("10b", "v5p:16x16x16", fsdp=16, context=4, keep=True),
    *(Line("10b", "v5p:8x8x8", slices=slices, fsdp=16, context=4, keep=True) for slices in (2, 4)),
    Line("2b", "v5p:8x8x8", fsdp=32, context=16, remat="blocks", minute=True),
    Line("10b", "v5p:8x8x8", fsdp=32, context=16, remat="blocks", minute=True),
    Line("10b", "v5p:16x16x16", fsdp=32, context=16, remat="blocks", minute=True),
]

FINETUNING = [
    *(
        Line("wan_ti2v_5b", topology, fsdp=chips, remat="blocks", lora=lora)
        for topology, chips in (("v6e:4x4", 16), ("v5p:2x2x4", 16), ("v5e:8x8", 64))
        for lora in (False, True)
    ),
    *(
        Line("wan_a14b", topology, fsdp=chips // 8, context=8, remat="blocks", lora=lora)
        for topology, chips in (("v6e:4x4", 16), ("v5p:2x2x4", 16), ("v5e:8x8", 64))
        for lora in (False, True)
    ),
    Line("wan_a14b", "v6e:2x4", context=8, remat="blocks", lora=True),
]
"""Fine-tuning of Wan 2.2 on clips of 81 frames of 704x1280: of all weights, and of adapters."""


def config_of(line: Line) -> Config:
    """The named config on the line's mesh, a row for every row shard."""
    values = ConfigDict(__import__(line.module, fromlist=["get_config"]).get_config())
    chips = line.slices * math.prod(int(side) for side in line.topology.split(":")[1].split("x"))
    values.mesh = {"replica": -1, "fsdp": line.fsdp, "context": line.context}
    values.data.rows_per_step = chips // line.context
    values.model.remat, values.model.keep_weights = line.remat, line.keep
    if line.lora:
        values.lora = {"rank": 16}
    if line.minute:
        values.plan.update(MINUTE)
        values.data.update({"row_tokens": MINUTE_SLOTS, "row_examples": 1, "row_text": MINUTE["words"]})
        values.model.context = "ring"
    return build(values.to_dict(), Config)


def measure(line: Line) -> dict[str, Any]:
    """The plan of a line, with what it was compiled from."""
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning.chips import chip_of
    from vdit.planning.compile import fingerprint
    from vdit.planning.estimate import EXPECTED_EFFICIENCY, Assumptions
    from vdit.planning.result import plan

    config, chip = config_of(line), chip_of(line.topology)
    assumptions = Assumptions(EXPECTED_EFFICIENCY, chip.link, chip.dcn, chip.price)
    steps = config.train.steps * config.data.rows_per_step
    values = plan(config, line.topology, line.slices, row_lengths(config), assumptions, steps)[0]
    return {"line": dataclasses.asdict(line), "fingerprint": fingerprint(), **values}


def page(results: dict[str, Any]) -> str:
    """docs/scaling.md."""
    from vdit.planning.compile import fingerprint

    done = [line for line in LINES if line.name in results]
    tuned = [line for line in FINETUNING if line.name in results]
    missing = [line for line in [*LINES, *FINETUNING] if line.name not in results]
    old = [line for line in done + tuned if results[line.name]["fingerprint"] != fingerprint()]
    head = (
        "size|chips|rows of slots|mesh r·f·c·t|remat|HBM GiB|s a step|low – high|MFU|at 0.60|"
        "tokens/s|compiled FLOPs|collectives GiB"
    ).split("|")
    table = [head, ["---", *["--:"] * (len(head) - 1)]]
    table += [_cells(line, results[line.name]) for line in done]
    text = [INTRODUCTION, *(f"| {' | '.join(row)} |" for row in table), ""]
    if tuned:
        cells = [_tuning_cells(line, results[line.name]) for line in tuned]
        text += [TUNING, pages.table(TUNING_HEAD, cells, words=(0, 1, 2)), ""]
    if missing:
        text.append(f"Not compiled yet, so not shown: {', '.join(line.name for line in missing)}.\n")
    if old:
        names = "all lines" if old == done else ", ".join(line.name for line in old)
        text.append(f"Compiled before the last change of the program, so a new run may differ: {names}.\n")
    return "\n".join([*text, CLOSING, *_attention_work()])


def _attention_work() -> list[str]:
    """Executed attention over the sum of n^2 for each size's clips, which needs no compilation."""
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit import flops

    lines = []
    for size in dict.fromkeys(line.size for line in LINES):
        config = config_of(next(line for line in LINES if line.size == size))
        rows = row_lengths(config)
        tokens, ideal = (
            rows.patches + rows.caption_tokens,
            sum(float(n @ n) for n in (row.astype(float) for row in rows.lengths)),
        )
        cells = [size, ", ".join(config.plan.clips), f"{tokens.sum() / len(rows) / config.data.row_tokens:.1%}"]
        for block in (128, 256, 512):
            area = sum(flops.attention_area(row, block, block) for row in rows.lengths)
            mark = "**" if block == (config.model.attention_block or ATTENTION_BLOCKS["splash"]) else ""
            cells.append(f"{mark}{area / ideal:.3f}{mark}")
        lines.append(cells)
    table = pages.table(["size", "clips", "fill", "128", "256", "512"], lines, words=(1,))
    return ["## Attention work", "", WORK, table, ""]


def _turn(line: Line) -> int:
    """Every size gets its first line before any gets its second."""
    kin = [
        other
        for other in [*LINES, *FINETUNING]
        if (other.size, other.minute, other.slices > 1) == (line.size, line.minute, line.slices > 1)
    ]
    return kin.index(line)


def _cells(line: Line, values: dict[str, Any]) -> list[str]:
    mesh = "·".join(str(values["mesh"][axis]) for axis in ("replica", "fsdp", "context", "tensor"))
    chips = f"{line.slices} x {line.topology}" if line.slices > 1 else line.topology
    size = f"{line.size}, a minute of video" if line.minute else line.size
    need = values["hbm_gib_per_chip"]
    cells = [size, chips, f"{values['rows_per_step']:,} x {values['row_tokens']:,}", mesh, values["remat"]]
    if not values["fits"]:
        needs = "more" if need is None else f"{need:.1f}"
        return [*cells, f"**{needs} of {values['hbm_gib_limit']}: does not fit**", *["–"] * 7]
    seconds = [values[f"step_seconds{end}"] for end in ("", "_low", "_high")]
    moved = sum(row["gib"] for row in values["collectives"].values())
    return [
        *cells,
        f"{need:.1f} of {values['hbm_gib_limit']}",
        f"{seconds[0]:.3g}",
        f"{seconds[1]:.3g} – {seconds[2]:.3g}",
        f"{values['mfu']:.0%}",
        f"{_mfu_at(values, 0.60):.0%}",
        count(values["tokens_per_second"]),
        f"{values['compiled_over_model_flops']:.2f}",
        f"{moved:.1f}",
    ]


TUNING_HEAD = [
    *("model", "trained", "chips", "mesh r·f·c·t", "HBM GiB", "s a step", "low – high"),
    *("hours of 1,000 steps", "cost of 1,000 steps"),
]


def _tuning_cells(line: Line, values: dict[str, Any]) -> list[str]:
    mesh = "·".join(str(values["mesh"][axis]) for axis in ("replica", "fsdp", "context", "tensor"))
    need, limit = values["hbm_gib_per_chip"], values["hbm_gib_limit"]
    model = {"wan_ti2v_5b": "TI2V-5B", "wan_a14b": "A14B, one expert"}[line.size]
    cells = [model, "LoRA, rank 16" if line.lora else "all weights", line.topology, mesh]
    if not values["fits"]:
        return [*cells, f"**{'more' if need is None else format(need, '.1f')} of {limit}: does not fit**", *["–"] * 4]
    seconds = [values[f"step_seconds{end}"] for end in ("", "_low", "_high")]
    return [
        *cells,
        f"{need:.1f} of {limit}",
        f"{seconds[0]:.3g}",
        f"{seconds[1]:.3g} – {seconds[2]:.3g}",
        f"{values['hours']:.1f}",
        f"${values['cost']:,.0f}",
    ]


TUNING = """## Fine-tuning Wan 2.2

1,000 steps on clips of 81 frames of 704x1280, one clip a step for every chip or context group, at the on-demand list
price; remat "blocks". Sizes are those of the published models; the frozen weights under adapters are in bfloat16.
"""

WORK = """Pairs of slots in the attention blocks that are executed over the sum of n² of the segments, by tokens of a
block; in bold the config's own block. Rows of many small images waste most. Smaller blocks waste less and run slower,
see docs/parallel.md.
"""


def _mfu_at(values: dict[str, Any], efficiency: float) -> float:
    """MFU if attention kernels reached another share of the peak."""
    attention, assumed = values["seconds"]["expected"]["attention"], values["assumptions"]["attention_efficiency"][1]
    return values["mfu"] / (1 + attention / values["step_seconds"] * (assumed / efficiency - 1))


INTRODUCTION = """# What the named sizes need on TPU slices

Written by `python -m benchmarks.scaling`; do not edit. Every line is a whole train step that the TPU compiler has
compiled for that slice on a machine without a TPU; nothing here has run on a TPU. HBM is what the compiler says;
seconds are estimates between a low and a high one, made as [docs/planner.md](planner.md) explains. MFU
counts the model's FLOPs only: no padding, no recomputation, attention by the sum of n² over segments. It is expected at
an attention efficiency of 0.52; "at 0.60" is what it would be at that one.

Sizes are those of `configs/vdit_*.py`. A mesh is replica·fsdp·context·tensor; replica crosses slices.
"""

CLOSING = """compiled FLOPs: those of the compiled program and its attention kernels over the model's. What is
above 1 is recomputation, padding, and attention blocks of several segments.

collectives: GiB of every array that a chip gathers, reduces or exchanges in a step.

"a minute of video" is one clip of 1,441 frames of 832x480 at 24 frames/s in a row: 563,160 patches.
"""


def main(argv: list[str]) -> None:
    no_arguments(argv)
    from vdit.planning.compile import fingerprint

    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    stale = [line for line in [*LINES, *FINETUNING] if results.get(line.name, {}).get("fingerprint") != fingerprint()]
    todo = [] if WRITE.value else sorted((line for line in stale if ONLY.value in line.name), key=_turn)
    start = time.perf_counter()
    for number, line in enumerate(todo):
        if MINUTES.value and time.perf_counter() - start > 60 * MINUTES.value:
            break
        try:
            results[line.name] = found = measure(line)
            said = f"{found['step_seconds']:.3g} s a step" if found["fits"] else found["problem"]
        except UserError as error:
            results.pop(line.name, None)
            said = str(error)
        left = (time.perf_counter() - start) / (number + 1) * (len(todo) - number - 1)
        print(f"{number + 1}/{len(todo)} {line.name}: {said}; {left / 60:.0f} min left", file=sys.stderr, flush=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    run_main(main)
