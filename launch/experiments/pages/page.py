"""Writes an experiment's page and its figures; every number on it is computed from the rows of its runs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.pages.drawing import draw
from launch.experiments.pages.notes import NOTES
from launch.experiments.spec import Experiment
from launch.experiments.stats import compare, of_arm
from vdit.errors import UserError
from vdit.io.files import write_text
from vdit.io.formatting import count
from vdit.render.pages import Block, Page, Picture, Points, Section, Table, Text, code, markdown
from vdit.scaling.laws.extensions.quality import fit_quality
from vdit.scaling.laws.seeds import LEVEL, mean
from vdit.scaling.reporting.measures import columns
from vdit.scaling.runs import Run
from vdit.training.record.workdir import environment

Rows = Sequence[Mapping[str, Any]]
STUDENT = f"{LEVEL:.0%} interval of the mean over seeds, by Student's t"


def write_page(
    experiment: Experiment,
    rows: Rows,
    floors: Mapping[str, float],
    data: Mapping[str, Path],
    docs: Path,
    commands: Sequence[str],
) -> Path:
    """Writes docs/NAME.md and docs/figures/NAME.svg and .png; gives the page.

    Args:
      experiment, rows, data, docs: what was run, a row for each run, data sets by name, folder of the page.
      floors: measures of true clips.
      commands: of the experiment, and of each of its data sets.
    """
    result: list[Block] = [Points(_findings(experiment, rows))]
    if figures := draw(experiment, rows, floors, docs):
        address, table = figures[0].relative_to(docs).as_posix(), code(f"{experiment.name}.csv")
        result.append(Picture(address, experiment.title, f"Bars: {STUDENT}. Drawn from {table}."))
    arms: list[Block] = [_table(experiment, rows), Text(f"*±: half the {STUDENT}.*")]
    if same := _same(rows):
        said = ", ".join(f"{code(name)} {value:.3g}" for name, value in same.items())
        arms.append(Text(f"The same for all runs: {said}."))
    if floors:
        said = ", ".join(f"{code(name)} {value:.3g}" for name, value in floors.items())
        arms.append(Text(f"The same measures of true clips: {said}."))
    parts = [(NOTES[note][0], NOTES[note][1](experiment.name, rows, data, docs)) for note in experiment.notes]
    page = Page(
        title=experiment.title,
        lead=[f"**Claim.** {experiment.claim}", f"**Question.** {experiment.question}"],
        sections=[
            Section("result", "Result", result),
            *(Section("note", title, blocks) for title, blocks in parts),
            Section("arms", "All arms", arms),
            Section("limits", "What this cannot show", [Points(_limits(experiment, rows))]),
            Section("made", "Made by", _made(experiment, rows, commands)),
        ],
    )
    path = docs / f"{experiment.name}.md"
    write_text(path, markdown(page))
    return path


def _findings(experiment: Experiment, rows: Rows) -> list[str]:
    lines = [found.words() for args in experiment.compare if (found := compare(rows, *args))]
    for metric, floor in experiment.laws:
        fitted = [dict(row) for row in rows if row["kind"] != "grid" or metric in row]
        try:
            lines.append(_trend(fitted, metric, float(floor or 0)))
        except UserError as error:
            lines.append(f"No law of `{metric}`: {error}.")
    return lines or ["Nothing was compared."]


def _trend(runs: list[Run], metric: str, floor: float) -> str:
    """Whether a metric goes with compute, by the exponents that each seed's own runs give."""
    law = fit_quality(runs, metric, floor=floor, bootstraps=0)
    if law.over_seeds is None:
        raise UserError("fewer than two seeds were measured at all budgets")
    verdict = "shows **no trend**" if law.trend == "flat" else f"**{law.trend}**"
    found = law.over_seeds
    span = f" ({LEVEL:.0%} interval over {found.count} seeds {-found.high:.3g} to {-found.low:.3g})"
    return (
        f"`{metric}` {verdict} with compute: exponent {-found.value:.3g}{span}, {len(law.flops_B)} budgets, a factor "
        f"{law.flops_B[-1] / law.flops_B[0]:.3g}. Rank correlation with the loss: {law.loss_correlation:.2f}."
    )


def _table(experiment: Experiment, rows: Rows) -> Table:
    same = _same(rows)
    metrics = [name for name in columns(rows) if name not in same]
    elsewhere = any(measure.startswith("loss:") for measure in experiment.measures)
    own_loss = ("loss", "loss_ood") if elsewhere else ()  # not comparable between arms of different data
    titles = [f"{metric} (own data)" if metric in own_loss else metric for metric in metrics]
    lines = []
    for arm in experiment.arms:
        own = [row for row in rows if row["arm"] == arm.name]
        if not own:
            continue
        average = {
            name: sum(row[name] for row in own) / len(own) for name in ("tokens", "epochs", "flops", "train_seconds")
        }
        cells = [arm.name, str(len(own)), count(own[0]["params"]), count(average["tokens"]), f"{average['epochs']:.2f}"]
        cells += [f"{average['flops']:.3g}", f"{average['train_seconds'] / 60:.1f}"]
        lines.append([*cells, *(_cell(of_arm(rows, arm.name, metric)) for metric in metrics)])
    return Table(["arm", "seeds", "N", "D", "epochs", "FLOPs", "minutes", *titles], lines)


def _same(rows: Rows) -> dict[str, float]:
    """Metrics that do not differ between runs, such as what a frozen ball scores on the clips of all of them."""
    found = {name: {float(row[name]) for row in rows if name in row} for name in columns(rows)}
    return {name: values.pop() for name, values in found.items() if len(values) == 1 and len(rows) > 1}


def _cell(values: Mapping[int, float]) -> str:
    if not values:
        return ""
    found = mean(list(values.values()))
    reach = f" ± {found.high - found.value:.2g}" if math.isfinite(found.high) else ""
    return f"{found.value:.4g}{reach}"


def _limits(experiment: Experiment, rows: Rows) -> list[str]:
    seeds = {row["seed"] for row in rows}
    largest, most = max(row["params"] for row in rows), max(row["flops"] for row in rows)
    return [
        *experiment.limits,
        f"Models of at most {count(largest)} parameters and {most:.2g} training FLOPs.",
        f"{len(seeds)} seeds: intervals are of the mean over seeds, not of a single run; over few seeds they are wide.",
    ]


def _made(experiment: Experiment, rows: Rows, commands: Sequence[str]) -> list[Block]:
    about = environment()
    command, *of_data = commands
    minutes = sum(row["train_seconds"] for row in {row["run"]: row for row in rows}.values()) / 60
    config, table = f"configs/experiments/{experiment.name}.py", f"{experiment.name}.csv"
    return [
        Text(
            f"{code(command)} from [{config}](../../{config}); rows in [{table}]({table})."
            f" {len({row['run'] for row in rows})} runs, {minutes:.1f} minutes in training steps over all restarts, on"
            f" {about['cores']} cores ({about['machine']}, jax {about['packages']['jax']})."
        ),
        Text(f"Data: {'; '.join(map(code, of_data))}."),
    ]
