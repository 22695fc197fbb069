"""One table of all experiments that were run, on docs/experiments/README.md: `python -m launch.experiments.index`.

An experiment's first comparison is its headline; everything is computed from its NAME.csv.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from launch.experiments import spec
from launch.experiments.spec import Experiment
from vdit.command.run import no_arguments, run_main
from vdit.errors import UserError

COMMAND = "python -m launch.experiments.index"


def line(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Link, headline, verdict, effect with its interval, and what it took; its first comparison is the headline."""
    from launch.experiments.stats import compare
    from vdit.render.pages import code

    metric, arm, other = experiment.compare[0]
    found = compare(rows, metric, arm, other)
    minutes = sum(float(row.get("train_seconds") or 0) for row in rows) / 60
    took = f"{len(rows)} runs, {sum(float(row['flops']) for row in rows):.2g} FLOPs, {minutes:.0f} min"
    said = ("not measured", "") if found is None else (found.decision, found.effect())
    return [f"[{experiment.title}]({experiment.name}.md)", f"{code(metric)}, *{arm}* against *{other}*", *said, took]


def index(docs: Path) -> str:
    """The table, in Markdown.

    Raises:
      UserError: if no experiment was run.
    """
    from vdit.render.pages import Table, markdown_table
    from vdit.scaling.runs import read_csv

    lines, waiting = [], []
    for name in spec.names():
        experiment, path = spec.load(name), docs / f"{name}.csv"
        if path.exists():
            lines.append(line(experiment, read_csv(path)))
        else:
            waiting.append([experiment.title, experiment.question, "not run on this version", "", ""])
    if not lines:
        raise UserError(f"{docs} has no table of an experiment; python -m launch.experiment --name=NAME makes one")
    head = ["experiment", "headline", "verdict", "effect (95% interval)", "what it took"]
    return markdown_table(Table(head, [*lines, *waiting], words=(1, 2, 3, 4)))


def main(argv: list[str]) -> None:
    from vdit.render.pages import put

    no_arguments(argv)
    docs = Path(flags.FLAGS.docs)
    text = index(docs)
    put(docs / "README.md", COMMAND, text)
    print(text)


if __name__ == "__main__":
    flags.DEFINE_string("docs", "docs/experiments", "Folder of the tables and of README.md.")
    run_main(main)
