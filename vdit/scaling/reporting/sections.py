"""The sections of the report; each stands for itself and says "not run yet" where there is nothing to show."""

from __future__ import annotations

import base64
import csv
import io
import json
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from vdit.io import formatting
from vdit.scaling.laws.laws import LEVEL, Cost
from vdit.scaling.reporting.gallery import gallery
from vdit.scaling.reporting.page import PENDING, Page, data_uri, table
from vdit.scaling.reporting.words import limits
from vdit.scaling.runs import COLUMNS


def _main_figure(page: Page) -> str:
    left = page.plot(
        "isoflop",
        "<b>Loss against model size at equal compute.</b> A point is a finished run, a line the parabola through one"
        " budget, a diamond its minimum; an open diamond is a minimum outside the sizes tried.",
        "runs/*/result.json",
    )
    right = page.plot(
        "compute",
        "<b>Loss against compute.</b> The line is the fitted law at the best size for each budget, with its"
        f" {LEVEL:.0%} bootstrap interval. The circle was predicted for the held-out run, the star is what it"
        " reached.",
        "runs/*/result.json, prediction.json",
    )
    return f'<div class="pair wide">{left}{right}</div>'


def _law(page: Page) -> str:
    fit = page.found.fit
    if fit is None:
        return f'<p class="pending">not run yet: {escape(page.found.unfitted)}</p>'
    meaning = {
        "E": "loss that no size and no data removes",
        "A": "weight of the size term",
        "alpha": "exponent of N",
        "B": "weight of the data term",
        "beta": "exponent of D",
    }
    rows = [
        [f"<i>{name}</i>", f"{getattr(fit.law, name):.4g}", formatting.span(fit.interval(name)), meaning[name]]
        for name in meaning
    ]
    a = float(fit.law.exponent(fit.cost))
    rows.append(["<i>a</i>", f"{a:.3f}", formatting.span(fit.interval("a")), "N<sub>opt</sub> grows as C<sup>a</sup>"])
    for approach, found, words in (
        ("parabolas", page.found.isoflop, "the same from the minima of the parabolas"),
        ("envelope", page.found.envelope, "the same from the lowest loss over all sizes at each amount of compute"),
    ):
        if found and found.params:
            exponent, interval = found.params.exponent, found.params.interval
            rows.append([f"<i>a</i>, {approach}", f"{exponent:.3f}", formatting.span(interval), words])
    if fit.cost.exponent != 1:
        other = float(fit.law.exponent(Cost()))
        rows.append(["<i>a</i>, were C = 6ND", f"{other:.3f}", "", "the same law, if FLOPs were 6 N D"])
    hangs_on = "; ".join(f"<code>{escape(row['run'])}</code> {row['a_moves']:+.3f}" for row in page.found.influence[:3])
    assert page.found.grid is not None
    cost = page.found.grid.convention
    return (
        f"<p>L(N, D) = E + A / N<sup>α</sup> + B / D<sup>β</sup>, fitted to {fit.rows} runs by the summed Huber loss"
        " of log L. N counts parameters without the input, text and output projections, D real patches. FLOPs:"
        f" {escape(cost)}; along the grid C = {fit.cost.factor:.3g} N<sup>{fit.cost.exponent:.2f}</sup> D.</p>"
        + table(["", "value", f"{LEVEL:.0%} interval", "meaning"], rows, text=(3,))
        + f"<p>The exponent hangs on single runs: left out, these move it most: {hangs_on}.</p>"
        + page.made("runs.csv")
        + '<p class="made">Again: <code>python -m vdit.scaling.fit'
        f" {escape(str(page.found.study.path / 'runs.csv'))}</code></p>"
    )


def _held_out(page: Page) -> str:
    said = page.found.prediction
    if said is None:
        return PENDING
    verdict = (
        ""
        if said.covered is None
        else f'<span class="{"good" if said.covered else "bad"}">{"inside" if said.covered else "outside"}</span>'
    )

    def error(value: float | None) -> str:
        return "" if value is None else f"{value:+.2%}"

    rows = [
        ["law", f"{said.loss:#.4g}", formatting.span(said.interval, 4), error(said.error), verdict],
        ["last value carried forward", f"{said.baseline:#.4g}", "", error(said.baseline_error), ""],
        ["<b>measured</b>", "not run yet" if said.measured is None else f"<b>{said.measured:#.4g}</b>", "", "", ""],
    ]
    when = (
        f"written {escape(said.written)}, before the run" if said.written else "computed by this report, after the run"
    )
    about = (
        f"<p>Run <code>{escape(said.run)}</code>: {formatting.count(said.params)} parameters,"
        f" {formatting.count(said.tokens)} patches, {formatting.flops(said.flops)} FLOPs. Prediction {when}.</p>"
    )
    return (
        about
        + table(["", "loss", f"{LEVEL:.0%} interval", "error", "measurement is"], rows)
        + page.made("prediction.json, runs/*/result.json")
    )


def _physics(page: Page) -> str:
    return (
        '<div class="wide">'
        + page.plot(
            "physics",
            "<b>Error of the balls' velocity in generated clips</b>, against the simulator's truth; bars are 95%"
            " intervals over clips, steps the best so far. Dashed: the same measure on ground-truth frames, which no"
            " model can beat.",
            "runs/*/result.json, floor.json",
        )
        + "</div>"
    )


def _film(page: Page) -> str:
    """The text-to-video runs and their samples."""
    lines = [
        f"Run <code>{escape(str(r['run']))}</code>: {formatting.count(r['params'])} parameters,"
        f" {formatting.flops(r['flops'])} FLOPs, validation loss {r['loss']:#.4g} on held-out shots of the same film."
        for r in page.found.study.of_kind("film")
    ]
    return (f"<p>{' '.join(lines)}</p>" if lines else "") + gallery(page, "film")


def _data(page: Page) -> str:
    data = page.found.study.data
    if not data:
        return PENDING
    head = [
        "data set",
        "source",
        "splits",
        "sizes",
        "clips planned",
        "rows",
        "slots",
        "fill",
        "slowest device / mean",
        "licence",
    ]
    rows = []
    for name, figures_ in sorted(data.items()):
        splits = ", ".join(f"{split} {count}" for split, count in figures_.get("splits", {}).items())
        sizes = figures_.get("shapes", {}).get("distinct_sizes", "")
        numbers = [
            f"{figures_[key]:,}" if isinstance(figures_.get(key), int) else "" for key in ("examples", "rows", "slots")
        ]
        fill = f"{figures_['fill']:.2%}" if isinstance(figures_.get("fill"), float) else ""
        balance = f"{figures_['balance']:.3f}" if isinstance(figures_.get("balance"), (int, float)) else ""
        rows.append(
            [
                escape(name),
                escape(str(figures_.get("source", ""))),
                escape(splits),
                sizes,
                *numbers,
                fill,
                balance,
                escape(str(figures_.get("licence", ""))),
            ]
        )
    plots = "".join(
        page.plot(name, caption, "data/*.json")
        for name, caption in (
            (
                "packing_tokens",
                "<b>Sizes of examples</b>, caption and patches, as the plan packs them: clips keep their own height, "
                "width and length.",
            ),
            ("packing_rows", "<b>Examples in a packed row.</b> Fill is real tokens over slots; the rest is padding."),
        )
    )
    sheets = "".join(
        f'<figure class="wide"><img class="sheet" alt="contact sheet of {escape(file.stem)}"'
        f' src="{data_uri(file, "image/png")}"><figcaption>{escape(file.stem)}</figcaption></figure>'
        for file in sorted((page.found.study.path / "data").glob("*.png"))
    )
    return table(head, rows, text=(2, 9)) + page.made("data/*.json") + f'<div class="pair wide">{plots}</div>{sheets}'


def _runs(page: Page) -> str:
    runs = page.found.study.runs
    if not runs:
        return PENDING
    shown: list[tuple[str, str, Callable[[Any], str]]] = [
        ("run", "run", lambda v: escape(str(v))),
        ("kind", "kind", lambda v: escape(str(v))),
        ("width", "width", str),
        ("depth", "depth", str),
        ("params", "N", formatting.count),
        ("params_total", "with embeddings", formatting.count),
        ("tokens", "D, patches", formatting.count),
        ("epochs", "epochs", formatting.count),
        ("steps", "steps", formatting.count),
        ("flops", "FLOPs", formatting.flops),
        ("flops_6nd", "6ND", formatting.flops),
        ("loss", "loss", lambda v: f"{v:#.4g}"),
        ("velocity_in", "error in", lambda v: f"{v:.3g}"),
        ("velocity_out", "error out", lambda v: f"{v:.3g}"),
        ("train_seconds", "training", formatting.duration),
    ]
    shown = [column for column in shown if any(column[0] in run for run in runs)]
    rows = [[_cell(run.get(name), form) for name, _, form in shown] for run in runs]
    held = [place for place, run in enumerate(runs) if run.get("kind") == "heldout"]
    seconds = sum(run.get("train_seconds", 0) for run in runs)
    link = base64.b64encode(_csv(runs).encode()).decode()
    return (
        f"<p>{len(runs)} finished runs, {formatting.duration(seconds)} of training. All columns: "
        f'<a download="runs.csv" href="data:text/csv;base64,{link}">runs.csv</a>.</p>'
        + table([title for _, title, _ in shown], rows, held=held)
        + page.made("runs/*/result.json")
    )


def _cell(value: Any, form: Callable[[Any], str]) -> str:
    try:
        return "" if value is None else form(value)
    except (TypeError, ValueError):
        return escape(str(value))


def _csv(runs: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(runs)
    return text.getvalue()


def _curves(page: Page) -> str:
    return (
        '<div class="wide">'
        + page.plot(
            "curves",
            "<b>Training loss</b> of every run against its compute so far, smoothed over logged steps. Colour is the"
            " width; runs of one width that end at different budgets share their colour.",
            "runs/*/metrics.jsonl",
        )
        + "</div>"
    )


def _limits(page: Page) -> str:
    if not page.found.counted:
        return PENDING
    return f'<ul class="limits">{"".join(f"<li>{line}</li>" for line in limits(page.found))}</ul>'


def _machine(page: Page) -> str:
    about = page.found.study.about
    if not about:
        return PENDING
    facts = [
        ("command", about.get("command")),
        ("started", about.get("started")),
        *dict(about.get("machine") or {}).items(),
    ]
    rows = [
        [escape(str(name)), f"<code>{escape(value if isinstance(value, str) else json.dumps(value))}</code>"]
        for name, value in facts
        if value
    ]
    return table(["", ""], rows, text=(1,)) + page.made("study.json")


SECTIONS: tuple[tuple[str, str, Callable[[Page], str]], ...] = (
    ("scaling", "How the loss scales", _main_figure),
    ("held-out", "Predicted before it was run", _held_out),
    ("law", "The fitted law", _law),
    ("physics", "Does it learn the physics?", _physics),
    ("samples", "The same seed at more compute", lambda page: gallery(page, "compute", "first")),
    ("film", "The film", _film),
    ("data", "Data and packing", _data),
    ("curves", "Training curves", _curves),
    ("runs", "All runs", _runs),
    ("limits", "What the data cannot show", _limits),
    ("machine", "Machine and command", _machine),
)
