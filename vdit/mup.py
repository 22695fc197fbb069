"""Does the learning rate found at a small width hold at a large one? The two checks of muP, as figures.

    python -m vdit.mup --config=configs/physics.py --out=docs/figures/mup [--widths=64,128,256,512,1024]
    python -m vdit.mup --runs=sweeps/mup/runs.csv --out=docs/figures/mup-rate

The first trains a few steps at every width, with muP and without, and draws how far activations move (flat under muP).
The second draws the loss of finished runs against their rate, for each width, and the best rate of each.
"""

from __future__ import annotations

import json

from absl import flags

from vdit.command import config_flag
from vdit.command.run import no_arguments, run_main
from vdit.config import Config
from vdit.config_dict import build


def main(argv: list[str]) -> None:
    no_arguments(argv)
    from vdit.diagnostics import mup

    values = flags.FLAGS
    if values.runs:
        from vdit.scaling.runs import read_csv

        found = mup.rate_figure([run for run in read_csv(values.runs) if "learning_rate" in run], values.out)
    else:
        from vdit.parallel.runtime import cpu_devices_for, initialise

        config = build(values.config.to_dict(), Config)
        initialise(cpu_devices_for(config))
        from data_pipelines.reading.training_data import packed_data

        widths = [int(width) for width in values.widths]
        found = mup.check(config, packed_data(config), widths, values.steps, values.out)
    print(json.dumps(found, indent=1))
    print(f"{values.out}.svg, {values.out}.png")


if __name__ == "__main__":
    config_flag.define("config", "The experiment whose model and data are used.", "configs/physics.py")
    flags.DEFINE_string("runs", "", "runs.csv of runs of several widths and learning rates: draw these instead")
    flags.DEFINE_list("widths", ["64", "128", "256", "512", "1024"], "widths to train, multiples of model.head_width")
    flags.DEFINE_integer("steps", 4, "training steps", lower_bound=1)
    flags.DEFINE_string("out", "mup", "figure to write, without .svg and .png")
    run_main(main)
