"""An experiment's figures, from the rows of its runs: `python -m launch.experiments.figures [NAME ...]`.

The command draws docs/experiments/figures/NAME.svg and .png again from docs/experiments/NAME.csv; nothing is run.
"""

from __future__ import annotations

from pathlib import Path

from absl import flags

from launch.experiments import spec
from vdit.command.run import run_main


def main(argv: list[str]) -> None:
    from launch.experiments.pages.drawing import draw
    from vdit.scaling.runs import read_csv

    docs = Path(flags.FLAGS.docs)
    for name in argv[1:] or spec.names():
        experiment, table = spec.load(name), docs / f"{name}.csv"
        if argv[1:] or table.exists():
            print(*draw(experiment, read_csv(table), {}, docs), sep="\n")


if __name__ == "__main__":
    flags.DEFINE_string("docs", "docs/experiments", "Folder of the tables, in which figures/ is written.")
    run_main(main)
