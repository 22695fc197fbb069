"""Writes an experiment's page and its figures; every number on it is computed from the rows of its runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.notes import NOTES
from launch.experiments.spec import Experiment, Figure
from launch.experiments.stats import compare, of_arm
from vdit.errors import UserError
from vdit.io.formatting import count
from vdit.render import charts, panels
from vdit.render.panels import Panel, Series
from vdit.scaling.laws.quality import fit_quality
from vdit.scaling.laws.seeds import LEVEL, Mean, mean
from vdit.scaling.runs import Run
from vdit.training.workdir import environment

Rows = Sequence[Mapping[str, Any]]
CHANGES = ("low", "high")


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
    lines = [
        f"# {experiment.title}",
        "",
        f"**Claim.** {experiment.claim}",
        "",
        f"**Question.** {experiment.question}",
        "",
        "## Result",
        "",
        *(f"* {line}" for line in _findings(experiment, rows)),
    ]
    if drawn := [panel for figure in experiment.figures if (panel := _panel(figure, rows, floors))]:
        charts.save(panels.beside(drawn), docs / "figures" / experiment.name)
        lines += ["", f"![{experiment.title}](figures/{experiment.name}.svg)", ""]
        lines += [
            f"*Bars: {LEVEL:.0%} intervals of the mean over seeds, by Student's t. Drawn from `{experiment.name}.csv`.*"
        ]
    for note in experiment.notes:
        title, make = NOTES[note]
        lines += ["", f"## {title}", "", *make(experiment.name, rows, data, docs)]
    lines += ["", "## All arms", "", *_table(experiment, rows), ""]
    lines += [f"*±: half the {LEVEL:.0%} interval of the mean over seeds, by Student's t.*"]
    if floors:
        said = ", ".join(f"`{name}` {value:.3g}" for name, value in floors.items())
        lines += ["", f"The same measures of true clips: {said}."]
    lines += ["", "## What this cannot show", "", *(f"* {line}" for line in _limits(experiment, rows))]
    lines += ["", "## Made by", "", *_made(experiment, rows, commands)]
    page = docs / f"{experiment.name}.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


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


def _metrics(rows: Rows) -> list[str]:
    """Measured columns, in the order in which they first appear."""
    kinds = ("loss", "velocity_", "lost_", "adherence_", "kid", "subject_", "came_out_", "in_place_")
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(kinds))
    return [name for name in names if not name.endswith(CHANGES)]


def _table(experiment: Experiment, rows: Rows) -> list[str]:
    metrics = _metrics(rows)
    elsewhere = any(measure.startswith("loss:") for measure in experiment.measures)
    own_loss = ("loss", "loss_ood") if elsewhere else ()  # not comparable between arms of different data
    titles = [f"{metric} (own data)" if metric in own_loss else metric for metric in metrics]
    head = ["arm", "seeds", "N", "D", "epochs", "FLOPs", "minutes", *titles]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " --: |" * (len(head) - 1)]
    for arm in experiment.arms:
        own = [row for row in rows if row["arm"] == arm.name]
        if not own:
            continue
        average = {
            name: sum(row[name] for row in own) / len(own) for name in ("tokens", "epochs", "flops", "train_seconds")
        }
        cells = [arm.name, str(len(own)), count(own[0]["params"]), count(average["tokens"]), f"{average['epochs']:.2f}"]
        cells += [f"{average['flops']:.3g}", f"{average['train_seconds'] / 60:.1f}"]
        cells += [_cell(of_arm(rows, arm.name, metric)) for metric in metrics]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(values: Mapping[int, float]) -> str:
    if not values:
        return ""
    found = mean(list(values.values()))
    reach = f" ± {found.high - found.value:.2g}" if math.isfinite(found.high) else ""
    return f"{found.value:.4g}{reach}"


def _panel(figure: Figure, rows: Rows, floors: Mapping[str, float]) -> Panel | None:
    """One panel; None where nothing of it was measured."""
    arms = list(dict.fromkeys(row["arm"] for row in rows if any(metric in row for metric in figure.y)))
    groups = list(dict.fromkeys(row["group"] for row in rows if row["arm"] in arms)) if figure.x != "arm" else [""]
    series: list[Series] = []
    for metric in figure.y:
        for group in groups:
            points = _points(figure, rows, metric, [a for a in arms if not group or _group(rows, a) == group], arms)
            if points:
                x, means = zip(*points, strict=True)
                shown = group if len(groups) > 1 else ""
                name = ", ".join(part for part in (metric if len(figure.y) > 1 else "", shown) if part)
                low, high = _ends(means, figure.log_y)
                values = [m.value for m in means]
                joined = figure.x != "arm"
                series.append(Series(name, x, values, low, high, line=joined))
    if not series:
        return None
    level = ("true clips", floors[figure.floor]) if figure.floor in floors else None
    labels = arms if figure.x == "arm" else ()
    if labels:
        series = [_aside(each, place - (len(series) - 1) / 2) for place, each in enumerate(series)]
    title = {"arm": "", "flops": "training FLOPs"}.get(figure.x, figure.x.replace("_", " "))
    return Panel(title, figure.y_title, series, "", figure.log_x, figure.log_y, level, labels)


def _aside(series: Series, places: float) -> Series:
    """Moved beside its arm's place, so that no interval hides another."""
    return dataclasses.replace(series, x=[x + 0.12 * places for x in series.x])


def _ends(means: Sequence[Mean], log: bool) -> tuple[list[float], list[float]]:
    """Ends of the intervals as they are drawn: none for one seed, and none at or below 0 on a log axis."""
    low = [m.value if math.isinf(m.low) else m.low for m in means]
    high = [m.value if math.isinf(m.high) else m.high for m in means]
    if log:
        low = [max(end, m.value / 10) for end, m in zip(low, means, strict=True)]
    return low, high


def _group(rows: Rows, arm: str) -> str:
    return str(next(row["group"] for row in rows if row["arm"] == arm))


def _points(figure: Figure, rows: Rows, metric: str, arms: Sequence[str], all_arms: Sequence[str]) -> list[Any]:
    """(x, mean over seeds) of each arm that has the metric, by rising x."""
    found = []
    for arm in arms:
        values = list(of_arm(rows, arm, metric).values())
        if values:
            x = all_arms.index(arm) if figure.x == "arm" else mean(list(of_arm(rows, arm, figure.x).values())).value
            found.append((x, mean(values)))
    return sorted(found, key=lambda point: point[0])


def _limits(experiment: Experiment, rows: Rows) -> list[str]:
    seeds = sorted({row["seed"] for row in rows})
    largest, most = max(row["params"] for row in rows), max(row["flops"] for row in rows)
    return [
        *experiment.limits,
        f"Models of at most {count(largest)} parameters and {most:.2g} training FLOPs, on simulated balls; nothing "
        "here says that larger models on natural video do the same.",
        f"{len(seeds)} seeds: intervals over so few are wide, and are of the mean over seeds, not of a single run.",
        "Settings were not tuned for each arm; one rule for rate and batch holds for all of them.",
    ]


def _made(experiment: Experiment, rows: Rows, commands: Sequence[str]) -> list[str]:
    about = environment()
    command, *of_data = commands
    minutes = sum(row["train_seconds"] for row in {row["run"]: row for row in rows}.values()) / 60
    return [
        f"`{command}` from [configs/experiments/{experiment.name}.py](../../configs/experiments/{experiment.name}.py); "
        f"rows in [{experiment.name}.csv]({experiment.name}.csv). {len({row['run'] for row in rows})} runs, "
        f"{minutes:.1f} minutes in training steps over all restarts, on {about['cores']} cores "
        f"({about['machine']}, jax {about['packages']['jax']}).",
        "",
        "Data: " + "; ".join(f"`{each}`" for each in of_data) + ".",
    ]
