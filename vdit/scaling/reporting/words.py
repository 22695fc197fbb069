"""Sentences of the report, each computed from the study's files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from vdit.io.formatting import count, flops, span
from vdit.scaling.laws.laws import LEVEL
from vdit.scaling.reporting.analysis import Analysis
from vdit.scaling.reporting.figures import floor_of


def summary(found: Analysis) -> str:
    """The study in one paragraph (HTML)."""
    runs = found.counted
    if not runs:
        return "No run has finished yet. This page is refreshed after every finished run."
    sentences = [_progress(found), *_loss(found), *_law(found), *_held_out(found), *_physics(found)]
    return " ".join(sentences)


def _progress(found: Analysis) -> str:
    runs, planned = found.counted, found.planned
    sizes, costs = [r["params"] for r in runs], [r["flops"] for r in runs]
    done = f"{len(runs)} of {planned} runs are" if planned and planned > len(runs) else f"{len(runs)} runs are"
    return (
        f"{done} finished: models of {count(min(sizes))} to {count(max(sizes))} parameters, trained with"
        f" {flops(min(costs))} to {flops(max(costs))} FLOPs each."
    )


def _loss(found: Analysis) -> list[str]:
    best = found.best_at("grid", "loss")
    if len(best) < 2:
        return []
    (low, first), (high, last) = best[0], best[-1]
    return [
        f"Over {high / low:.3g} times the compute, the lowest validation loss of a budget goes from {first:#.4g} to"
        f" {last:#.4g}."
    ]


def _law(found: Analysis) -> list[str]:
    if found.fit is None:
        return [f"There is no law yet: {escape(found.unfitted)}."]
    a = float(found.fit.law.exponent(found.fit.cost))
    said = f"The best model size grows as <i>C</i><sup>{a:.2f}</sup>"
    interval = found.fit.interval("a")
    if interval:
        said += f" ({LEVEL:.0%} interval {interval[0]:.2f} to {interval[1]:.2f})"
    law = found.isoflop.params if found.isoflop else None
    if law:
        said += f"; parabolas through each budget say <i>C</i><sup>{law.exponent:.2f}</sup>"
    return [said + "."]


def _held_out(found: Analysis) -> list[str]:
    said = found.prediction
    if said is None:
        return []
    interval = f" ({LEVEL:.0%} interval {said.interval[0]:#.4g} to {said.interval[1]:#.4g})" if said.interval else ""
    if said.measured is None:
        return [
            f"For the held-out run at {flops(said.flops)} FLOPs the law predicts a loss of"
            f" {said.loss:#.4g}{interval}; it has not finished."
        ]
    when = "before it ran " if said.written else "(only afterwards, by this report) "
    verdict = {True: ", inside the interval", False: ", outside the interval", None: ""}[said.covered]
    assert said.error is not None and said.baseline_error is not None
    return [
        f"For the held-out run at {flops(said.flops)} FLOPs the law predicted {when}a loss of"
        f" {said.loss:#.4g}{interval}; measured was {said.measured:#.4g}{verdict}. The prediction is off by"
        f" {abs(said.error):.2%}, carrying the last value forward by {abs(said.baseline_error):.2%}."
    ]


def _physics(found: Analysis) -> list[str]:
    said = []
    for side, words in (("in", "in distribution"), ("out", "out of distribution")):
        best = _best_physics(found, side)
        if len(best) < 2:
            continue
        floor = floor_of(found, side)
        over = f" (ground truth measures {floor:.3g})" if floor else ""
        said.append(f"{words} from {best[0][1]:.3g} to {best[-1][1]:.3g}{over}")
    return [f"The best velocity error of a budget goes, {', and '.join(said)}, in units/s."] if said else []


def _best_physics(found: Analysis, side: str) -> list[tuple[float, float]]:
    """Lowest error of the smallest and of the largest budget, the held-out run counting as a budget."""
    name = f"velocity_{side}"
    return sorted(found.best_at("grid", name) + found.best_at("heldout", name))


def limits(found: Analysis) -> list[str]:
    """What the data cannot show, each line computed where it can be (HTML)."""
    lines = [*_fit_limits(found), *_run_limits(found), *_data_limits(found)]
    lines.append(
        "Sizes and budgets of a desktop CPU. Published exponents for image and video diffusion run from 0.36 to 0.57;"
        " nothing here says that the exponent of these models holds at theirs."
    )
    if found.study.unreadable:
        lines.append(
            "Files that could not be read and are left out: " + escape(", ".join(found.study.unreadable)) + "."
        )
    return lines


def _fit_limits(found: Analysis) -> list[str]:
    lines = [f"The fit warns: {escape(line)}." for line in found.fit.warnings] if found.fit else []
    for parabola in found.isoflop.parabolas if found.isoflop else ():
        if parabola.edge:
            lines.append(
                f"At {flops(parabola.budget)} FLOPs: {escape(parabola.edge)}. The minimum is extrapolated and takes"
                " no part in the power laws."
            )
    best, said = found.best_at("grid", "loss"), found.prediction
    if best and said is not None:
        lines.append(
            f"The held-out run costs {said.flops / best[-1][0]:.2g} times the largest fitted budget; the law is"
            " tested no further than that."
        )
        if not said.written:
            lines.append("No prediction was written before the held-out run: the one shown was computed afterwards.")
    if len(best) > 1:
        lines.append(f"The fitted budgets span {math.log10(best[-1][0] / best[0][0]):.1f} decades of compute.")
    if found.grid is not None and not found.grid.derived_tokens:
        ratio = found.grid.flops / (6 * found.grid.params * found.grid.tokens)
        if np.abs(ratio - 1).max() > 0.01:
            lines.append(
                f"Counted FLOPs are {ratio.min():.2f} to {ratio.max():.2f} times 6 N D: attention, caption tokens,"
                " projections and modulation weigh much in models this small, so the exponents depend on the"
                " convention (here: FLOPs as counted)."
            )
    return lines


def _run_limits(found: Analysis) -> list[str]:
    runs = found.counted
    if not runs:
        return []
    groups: dict[tuple[Any, ...], int] = {}
    for run in runs:
        key = tuple(run.get(name) for name in ("kind", "budget", "width", "depth", "params"))
        groups[key] = groups.get(key, 0) + 1
    lines = []
    if max(groups.values()) == 1:
        lines.append(
            "One seed for each size and budget: scatter between seeds is not measured, only residuals around the law."
        )
    lines.append(
        "One rule for learning rate and batch over all sizes, not tuned run by run; a fixed rule can tilt the"
        " exponent (Porian et al. 2024)."
    )
    repeats = [float(r["epochs"]) for r in runs if isinstance(r.get("epochs"), (int, float))]
    if repeats and max(repeats) > 1:
        lines.append(
            f"The longest run sees its data {count(max(repeats))} times; the law knows no difference between new and"
            " repeated clips."
        )
    return lines


def _data_limits(found: Analysis) -> list[str]:
    lines = []
    if "film" in found.study.data or any(s.get("group") == "film" for s in found.study.samples):
        lines.append(
            "The film's validation shots come from the same film, some from the same sets as training shots: its"
            " losses and samples are optimistic."
        )
    out = _best_physics(found, "out")
    if len(out) > 1 and out[-1][1] > 0.8 * out[0][1]:
        lines.append(
            f"Out of distribution the best physics error goes from {out[0][1]:.3g} to {out[-1][1]:.3g} over"
            f" {out[-1][0] / out[0][0]:.2g} times the compute: scale alone shows no clear help there."
        )
    return lines


def tiles(found: Analysis) -> Sequence[tuple[str, str, str]]:
    """(label, figure, remark) of the headline numbers (HTML)."""
    shown = []
    said = found.prediction
    if said is not None and said.error is not None and said.baseline_error is not None:
        shown.append(
            (
                "held-out loss predicted within",
                f"{abs(said.error):.2%}",
                f"last value carried forward: {abs(said.baseline_error):.2%}",
            )
        )
    if found.fit is not None:
        a = float(found.fit.law.exponent(found.fit.cost))
        shown.append(
            (
                "best size grows as",
                f"<i>C</i><sup>{a:.2f}</sup>",
                f"{LEVEL:.0%} interval {span(found.fit.interval('a'), 2)}",
            )
        )
    best = sorted(found.best_at("grid", "loss") + found.best_at("heldout", "loss"))
    if len(best) > 1:
        ratio = best[-1][0] / best[0][0]
        shown.append((f"best loss at {ratio:.3g}× compute", f"{best[0][1]:#.3g} → {best[-1][1]:#.3g}", "validation"))
    physical = _best_physics(found, "in")
    if physical:
        floor = floor_of(found, "in")
        shown.append(
            (
                "velocity error, in distribution",
                f"{physical[-1][1]:.3g}",
                f"units/s; ground truth {floor:.2g}" if floor else "units/s",
            )
        )
    return shown[:4]
