"""What a run needs and costs on TPUs, found by compiling its train step: no TPU is needed.

python -m vdit.plan --config=configs/X.py --topology=v5p:4x4x4 [--slices=n] [--json] [--search]
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from absl import flags

from vdit.command import config_flag
from vdit.command.progress_bar import COMPILING, ProgressBar
from vdit.command.run import no_arguments, run_main
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError

CONFIG = config_flag.define("config", "The experiment, a Python file with get_config().", "configs/vdit_10b.py")
TOPOLOGY = flags.DEFINE_string("topology", None, "Version and shape of a slice, such as v5e:16x16 or v5p:8x8x8.")
SLICES = flags.DEFINE_integer("slices", 1, "Number of slices.", lower_bound=1)
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")
SEARCH = flags.DEFINE_bool("search", False, "Try meshes, rows and remat policies; rank those that fit.")
COMPILATIONS = flags.DEFINE_integer("compilations", 12, "Most candidates that --search compiles.", lower_bound=1)
DUMP_HLO = flags.DEFINE_string("dump_hlo", None, "Write the compiled program to this file.")
PRICE = flags.DEFINE_float("price", None, "Dollars per chip-hour; default: on-demand list price.", lower_bound=0)
EFFICIENCY = flags.DEFINE_float(
    "attention_efficiency",
    None,
    "Share of the peak that attention kernels reach; default: 0.52 expected, between 0.45 and 0.65.",
    lower_bound=0.01,
    upper_bound=1,
)
LINK = flags.DEFINE_float("link", None, "GB/s in one direction of a link between chips; default: that of the chip.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if CONFIG.value is None or TOPOLOGY.value is None:
        raise UserError(
            "--config and --topology are both needed: python -m vdit.plan --config=configs/vdit_10b.py "
            "--topology=v5p:8x8x8 --config.data.rows_per_step=512"
        )
    config = build(CONFIG.value.to_dict(), Config)
    os.environ["JAX_PLATFORMS"] = "cpu"
    from data_pipelines.reading.row_lengths import row_lengths
    from vdit.planning.chips import chip_of
    from vdit.planning.estimate import EXPECTED_EFFICIENCY, Assumptions
    from vdit.planning.result import plan
    from vdit.planning.search import budget_of, search
    from vdit.planning.table import ranking, table

    chip = chip_of(TOPOLOGY.value)
    assumptions = Assumptions(
        (EFFICIENCY.value,) * 3 if EFFICIENCY.value else EXPECTED_EFFICIENCY,
        LINK.value * 1e9 if LINK.value else chip.link,
        chip.dcn,
        chip.price if PRICE.value is None else PRICE.value,
    )
    rows = row_lengths(config)
    if SEARCH.value:
        plans = search(config, TOPOLOGY.value, SLICES.value, rows, assumptions, COMPILATIONS.value)
        best = plans[0]
        print(json.dumps({**best, "candidates": plans}) if JSON.value else f"{ranking(plans)}\n\n{table(best)}")
        return
    with ProgressBar(f"plan for {TOPOLOGY.value}", "program", total=1) as bar:
        bar.show(COMPILING)  # where there is a terminal; a mistake that is found before stays one line
        values, program = plan(config, TOPOLOGY.value, SLICES.value, rows, assumptions, budget_of(config))
        bar.advance()
    if DUMP_HLO.value and program.hlo:
        Path(DUMP_HLO.value).write_text(program.hlo)
    print(json.dumps(values) if JSON.value else table(values))


if __name__ == "__main__":
    run_main(main)
