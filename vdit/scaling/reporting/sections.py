"""The sections of the report. What a study has not got to yet says so; what it does not have is not on its page."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vdit.io import formatting
from vdit.render.pages import (
    Block,
    Chart,
    Download,
    Page,
    Pending,
    Picture,
    Points,
    Row,
    Section,
    Table,
    Text,
    code,
    data_uri,
    plain,
)
from vdit.scaling.laws.checks.extrapolate import judge
from vdit.scaling.laws.law import LEVEL
from vdit.scaling.reading import Run
from vdit.scaling.reporting import figures, samples, words
from vdit.scaling.reporting.analysis import Analysis
from vdit.scaling.reporting.law_section import law
from vdit.scaling.reporting.measures import Measure, is_number, measures, varies
from vdit.scaling.reporting.prediction_words import beside_the_interval, digits, numbers, verdict
from vdit.scaling.reporting.provenance import chart, made_from, unit
from vdit.scaling.runs import COLUMNS, table


def page(found: Analysis, command: str) -> Page:
    """The report of a study.

    Args:
      found: the study.
      command: what writes the page.
    """
    opening = words.summary(found)
    parts = (_scaling, _held_out, law, _measures, _samples, _data, _curves, _runs, _limits, _machine)
    return Page(
        title=str(found.study.about.get("title", "Scaling study")),
        lead=opening[:1],
        points=opening[1:],
        sections=[section for make in parts for section in make(found)],
        kicker="vdit scaling study",
        tiles=words.tiles(found),
        footer=f"Written by {code(command)}. Every number is computed from the files named under figures and tables.",
    )


def _scaling(found: Analysis) -> Iterator[Section]:
    left = (
        "**Loss against model size at equal compute.** A point is a finished run, a line the parabola through one"
        " budget, a diamond its minimum; an open diamond is a minimum outside the sizes tried."
    )
    right = (
        "**Loss against compute.** The line is the fitted law at the best size for each budget, with its"
        f" {LEVEL:.0%} bootstrap interval. The circle was predicted for the held-out run, a star is what was reached."
    )
    blocks = Row(
        [
            chart("isoflop", found, figures.isoflop, left, "runs/*/result.json"),
            chart("compute", found, figures.compute, right, "runs/*/result.json, prediction.json"),
        ]
    )
    yield Section("scaling", "How the loss scales", [blocks])


def _predicted_metrics(metrics: Mapping[str, Any], held_out: Sequence[Run]) -> list[list[str]]:
    """Metrics that were predicted with the loss, by their power laws against compute."""
    rows = []
    for name, said in metrics.items():
        values = [float(run[name]) for run in held_out if isinstance(run.get(name), (int, float))]
        measured = sum(values) / len(values) if values else None
        error = "" if not measured else formatting.percent(said["predicted"] / measured - 1, "+")
        shown = "not measured yet" if measured is None else f"{measured:#.4g}"
        rows.append([code(name), f"{said['predicted']:#.4g}", formatting.span(said["interval"], 4), shown, error])
    return rows


def _held_out(found: Analysis) -> Iterator[Section]:
    said = found.prediction
    title = "Predicted before it was run" if said is None or said.written else "The held-out run"
    if said is None:
        if found.study.about.get("held_out"):
            yield Section("held-out", title, [Pending()])
        return

    def error(value: float | None) -> str:
        return "" if value is None else formatting.percent(value, "+")

    predicted, interval, measured = numbers(said)
    value, _ = digits(said.interval)
    rows = [
        ["law", predicted, interval, error(said.error), verdict(said.interval, said.measured)],
        ["last value carried forward", f"{said.baseline:#.{value}g}", "", error(said.baseline_error), ""],
        ["**measured**", f"**{measured}**" if measured else "not run yet", "", "", ""],
    ]
    when = (
        f"written {plain(said.written)}, before the run" if said.written else "computed by this report, after the run"
    )
    about = (
        f"Run {code(said.run)}: {formatting.count(said.params)} parameters, {formatting.count(said.tokens)}"
        f" {unit(found)}, {formatting.flops(said.flops)} FLOPs. Prediction {when}. {beside_the_interval(said)}"
    )
    head = ["", "loss", f"{LEVEL:.0%} interval", "error", "verdict"]
    blocks: list[Block] = [Text(about.strip()), Table(head, rows)]
    held_out = found.study.of_kind("heldout")
    if others := _predicted_metrics(found.study.prediction.get("metrics") or {}, held_out):
        blocks.append(Table(["", "predicted", f"{LEVEL:.0%} interval", "measured", "error"], others))
    if len(held_out) > 1 and found.fit is not None and found.grid is not None:
        judged = [
            [
                code(row["run"]),
                *(f"{row['flops']:.2e}", f"{row['predicted']:#.4g}", formatting.span(row["interval"], 4)),
                *(f"{row['measured']:#.4g}", error(row["error"]), verdict(row["interval"], row["measured"])),
            ]
            for row in judge(found.fit, found.grid, table(held_out))
        ]
        blocks.append(Text("All held-out runs beside the law of all fitted ones, computed by this report:"))
        blocks.append(Table(["run", "FLOPs", "law", f"{LEVEL:.0%} interval", "measured", "error", "verdict"], judged))
    made = made_from(found, "prediction.json, runs/*/result.json")
    yield Section("held-out", title, [*blocks, Text(made, small=True)])


def _measures(found: Analysis) -> Iterator[Section]:
    """A section for each measure that study.json gives a heading, and one for all others."""
    others: list[Chart] = []
    constant: list[str] = []
    for measure in words.described(found):
        if not varies(measure, found.measured):
            values = {column: _first(found, column) for column in measure.columns}
            constant += [f"{code(column)} {value:.4g}" for column, value in values.items() if value is not None]
            continue
        made = made_from(found, "runs/*/result.json")
        drawn = Chart(measure.name, figures.measured(found, measure), _caption(found, measure), made)
        if measure.heading:
            yield Section(_anchor(measure.name), measure.heading, [drawn])
        else:
            others.append(drawn)
    blocks: list[Block] = [Row(others)] if others else []
    if constant:
        blocks.append(Text(f"The same for all runs: {', '.join(constant)}."))
    if blocks:
        yield Section("measures", "Other measures against compute", blocks)


def _first(found: Analysis, column: str) -> float | None:
    return next((run[column] for run in found.measured if is_number(run.get(column))), None)


def _caption(found: Analysis, measure: Measure) -> str:
    title = plain(measure.title[:1].upper() + measure.title[1:])
    lines = [f"**{title}**{': ' + plain(measure.text) if measure.text else '.'}"]
    if measure.name in measure.columns and measure.name not in (found.study.about.get("measures") or {}):
        lines.append(f"Column {code(measure.name)}.")
    if any(f"{column}_low" in run for run in found.measured for column in measure.columns):
        lines.append("Bars are the intervals that the runs give.")
    if said := words.gains(found, measure):
        lines.append(f"The best of a budget goes {said}.")
    if measure.better:
        lines.append("Steps: the best so far.")
    if any(figures.floor_of(found, column) is not None for column in measure.columns):
        lines.append("Dashed: the same measure of ground truth.")
    return " ".join(lines)


def _anchor(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name)


def _samples(found: Analysis) -> Iterator[Section]:
    """A section for each group of samples, with the runs of that kind."""
    about = found.study.about.get("samples")
    for group in samples.groups(found):
        said = about.get(group) if isinstance(about, Mapping) else None
        said = said if isinstance(said, Mapping) else {}
        shown = samples.gallery(found, group, bool(said.get("smooth")))
        blocks: list[Block] = [Text(plain(said["text"]))] if said.get("text") else []
        for run in found.study.of_kind(group):
            blocks.append(
                Text(
                    f"Run {code(run['run'])}: {formatting.count(run['params'])} parameters,"
                    f" {formatting.flops(run['flops'])} FLOPs, loss {run['loss']:#.4g}."
                )
            )
        blocks += [shown, Text(made_from(found, "samples/samples.json"), small=True)] if shown else [Pending()]
        yield Section(f"samples-{_anchor(group)}", str(said.get("heading", f"Samples: {group}")), blocks)


def _data(found: Analysis) -> Iterator[Section]:
    data = found.study.data
    if not data:
        return
    head = ["data set", "source", "splits", "sizes", "clips planned", "rows", "slots", "fill", "slowest device / mean"]
    rows = []
    for name, said in sorted(data.items()):
        splits = said.get("splits")
        shapes = said.get("shapes")
        balance = said.get("balance")
        rows.append(
            [
                *(plain(name), plain(said.get("source", ""))),
                ", ".join(f"{plain(split)} {size}" for split, size in splits.items())
                if isinstance(splits, dict)
                else "",
                plain(shapes.get("distinct_sizes", "")) if isinstance(shapes, dict) else "",
                *(f"{said[key]:,}" if isinstance(said.get(key), int) else "" for key in ("examples", "rows", "slots")),
                f"{said['fill']:.2%}" if isinstance(said.get("fill"), float) else "",
                f"{balance:.3f}" if is_number(balance) else "",
                plain(said.get("licence", "")),
            ]
        )
    plots = [
        chart(
            *("packing_tokens", found, figures.packing_tokens),
            "**Sizes of examples**, caption and patches, as the plan packs them: clips keep their own height, width and"
            " length.",
            "data/*.json",
        ),
        chart(
            *("packing_rows", found, figures.packing_rows),
            "**Examples in a packed row.** Fill is real tokens over slots; the rest is padding.",
            "data/*.json",
        ),
    ]
    sheets = [
        Picture(data_uri(file.read_bytes(), "image/png"), f"contact sheet of {file.stem}", plain(file.stem))
        for file in sorted((found.study.path / "data").glob("*.png"))
    ]
    made = Text(made_from(found, "data/*.json"), small=True)
    yield Section(
        "data", "Data and packing", [Table([*head, "licence"], rows, words=(2, 9)), made, Row(plots), *sheets]
    )


def _curves(found: Analysis) -> Iterator[Section]:
    caption = (
        "**Training loss** of every run against its compute so far, smoothed over logged steps. Colour is the width;"
        " grey runs have not finished or have no width."
    )
    drawn = chart("curves", found, figures.curves, caption, "runs/*/metrics.jsonl")
    if drawn.chart is not None:
        yield Section("curves", "Training curves", [drawn])


_FORMS: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "run": ("run", plain),
    "kind": ("kind", plain),
    "width": ("width", str),
    "depth": ("depth", str),
    "params": ("N", formatting.count),
    "params_total": ("with embeddings", formatting.count),
    "tokens": ("D", formatting.count),
    "epochs": ("epochs", formatting.count),
    "steps": ("steps", formatting.count),
    "flops": ("FLOPs", formatting.flops),
    "flops_6nd": ("6ND", formatting.flops),
    "loss": ("loss", lambda v: f"{v:#.4g}"),
    "train_seconds": ("training", formatting.duration),
}
"""Title and form of a column of the table of runs; measures follow."""


def _runs(found: Analysis) -> Iterator[Section]:
    runs = found.study.runs
    if not runs:
        yield Section("runs", "All runs", [Pending()])
        return
    shown = {name: form for name, form in _FORMS.items() if any(name in run for run in runs)}
    names = [column for measure in measures(runs, {}) for column in measure.columns]
    shown |= {name: (plain(name), lambda v: f"{v:.3g}") for name in names}
    rows = [[_cell(run.get(name), form) for name, (_, form) in shown.items()] for run in runs]
    held = [place for place, run in enumerate(runs) if run.get("kind") == "heldout"]
    seconds = sum(run["train_seconds"] for run in runs if is_number(run.get("train_seconds")))
    spent = f", {formatting.duration(seconds)} of training" if seconds else ""
    blocks: list[Block] = [
        Download("runs.csv", _csv(runs), f"{formatting.many(len(runs), 'finished run')}{spent}. All columns:"),
        Table([title for title, _ in shown.values()], rows, marked=held),
        *(Text(f"{plain(note[:1].upper() + note[1:])}.", small=True) for note in found.notes),
        Text(made_from(found, "runs/*/result.json"), small=True),
    ]
    yield Section("runs", "All runs", blocks)


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    try:
        return "" if value is None else form(value)
    except (TypeError, ValueError):
        return plain(value)


def _csv(runs: Sequence[dict[str, Any]]) -> str:
    """All columns of all runs, as in runs.csv."""
    text = io.StringIO()
    more = sorted({name for run in runs for name in run} - set(COLUMNS))
    writer = csv.DictWriter(text, [*COLUMNS, *more], lineterminator="\n")
    writer.writeheader()
    writer.writerows(runs)
    return text.getvalue()


def _limits(found: Analysis) -> Iterator[Section]:
    lines = words.limits(found)
    yield Section("limits", "What the data cannot show", [Points(lines) if lines else Pending()])


def _machine(found: Analysis) -> Iterator[Section]:
    about = found.study.about
    machine = about.get("machine")
    facts = {"command": about.get("command"), "started": about.get("started")}
    facts |= dict(machine) if isinstance(machine, dict) else {}
    rows = [
        [plain(name), code(value if isinstance(value, str) else json.dumps(value))]
        for name, value in facts.items()
        if value
    ]
    if rows:
        made = Text(made_from(found, "study.json"), small=True)
        yield Section("machine", "Machine and command", [Table(["", ""], rows, words=(1,)), made])
