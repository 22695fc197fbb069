"""Sentences of the report, each computed from the study's files or taken from its study.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vdit.io.formatting import count, flops, many, span
from vdit.render.pages import code, plain
from vdit.scaling.laws.law import LEVEL
from vdit.scaling.reporting.analysis import Analysis
from vdit.scaling.reporting.figures import floor_of
from vdit.scaling.reporting.measures import Measure, is_number, measures
from vdit.scaling.reporting.prediction_words import headline, sentence


def summary(found: Analysis) -> list[str]:
    """The study in a few short statements; measures without a heading of their own are left to their captions."""
    runs = found.study.runs
    if not runs:
        return ["No run has finished yet. This page is written anew after every finished run."]
    if not found.counted:
        return [f"{_are(len(runs))} finished. {_uncounted(found)}"]
    predicted = [sentence(found.prediction)] if found.prediction else []
    return [_progress(found), *_loss(found), *_law(found), *predicted, *_measured(found)]


def _are(runs: int) -> str:
    return f"{many(runs, 'run')} {'is' if runs == 1 else 'are'}"


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.3g}"


def _uncounted(found: Analysis) -> str:
    """Why finished runs take no part in the law; empty where all do."""
    left = [run for run in found.study.runs if run.get("kind") in ("grid", "heldout") and run not in found.counted]
    if unvalidated := [run for run in left if not is_number(run.get("loss"))]:
        return (
            f"{_are(len(unvalidated))} without a validation loss and can't be compared or fitted: they were"
            " trained with `train.evaluate_every=-1`, which never evaluates (0 evaluates at the end)."
        )
    if left:
        return f"{_are(len(left))} without positive FLOPs, parameters and tokens, and can't be fitted."
    if not found.counted:
        return "None of them is of an iso-FLOP grid (kind `grid` or `heldout`), so there is no law to fit."
    return ""


def _progress(found: Analysis) -> str:
    runs, planned = found.counted, found.planned
    sizes, costs = [r["params"] for r in runs], [r["flops"] for r in runs]
    done = f"{len(runs)} of {planned} runs are" if planned and planned > len(runs) else _are(len(runs))
    return (
        f"{done} finished: {count(min(sizes))} to {count(max(sizes))} parameters,"
        f" {flops(min(costs))} to {flops(max(costs))} FLOPs."
    )


def _loss(found: Analysis) -> list[str]:
    best = found.best_at("grid", "loss")
    if len(best) < 2:
        return []
    (low, first), (high, last) = best[0], best[-1]
    return [
        f"**Loss.** Over {_times(high / low)} times the compute, the lowest of a budget goes from {first:#.3g} to"
        f" {last:#.3g}."
    ]


def _law(found: Analysis) -> list[str]:
    if found.fit is None:
        return [f"**Law.** There is no law yet: {plain(found.unfitted)}."]
    a = float(found.fit.law.exponent(found.fit.cost))
    interval = found.fit.interval("a")
    between = f" ({LEVEL:.0%} interval {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    return [f"**Best size.** It grows as *C*^{{{a:.2f}}}{between}."]


def described(found: Analysis) -> list[Measure]:
    """The measures of the runs that take part, with what study.json says of them."""
    about = found.study.about.get("measures")
    return measures(found.measured, about if isinstance(about, dict) else {})


def _measured(found: Analysis) -> list[str]:
    """How the best of each budget goes, for measures that have a section of their own."""
    shown = [(measure, gains(found, measure)) for measure in described(found) if measure.heading]
    return [
        f"**{plain(measure.title[:1].upper() + measure.title[1:])}.** At best {said}."
        for measure, said in shown
        if said
    ]


def gains(found: Analysis, measure: Measure) -> str:
    """The best value of the smallest and of the largest budget on each split; "" where better is unknown."""
    said = []
    for column, side in measure.columns.items():
        best = best_of(found, measure, column)
        if len(best) > 1:
            unit = f" {plain(measure.unit)}" if measure.unit else ""
            said.append(f"from {best[0][1]:.3g} to {best[-1][1]:.3g}{unit}{' ' + side if side else ''}")
    return " and ".join(said)


def best_of(found: Analysis, measure: Measure, column: str) -> list[tuple[float, float]]:
    """(budget, best value) from small to large, the held-out run counting as a budget; none if better is unknown."""
    if not measure.better:
        return []
    sign = -1 if measure.better == "higher" else 1
    best: dict[float, float] = {}
    for run in found.measured:
        if is_number(run.get(column)):
            budget = float(run.get("budget") or run["flops"])
            best[budget] = min(best.get(budget, math.inf), sign * float(run[column]))
    return [(budget, sign * value) for budget, value in sorted(best.items())]


def limits(found: Analysis) -> list[str]:
    """What the data cannot show: what is computed from the runs, and what study.json says."""
    lines = [*_fit_limits(found), *_run_limits(found), *_measure_limits(found)]
    said = found.study.about.get("limits")
    lines += [plain(line) for line in said] if isinstance(said, list) else []
    if found.study.unreadable:
        lines.append(f"Files that could not be read and are left out: {', '.join(map(code, found.study.unreadable))}.")
    if found.counted and (left := _uncounted(found)):
        lines.append(left)
    return lines


def _fit_limits(found: Analysis) -> list[str]:
    lines = [f"{plain(_capitalised(line))}." for line in found.warnings]
    for parabola in found.isoflop.parabolas if found.isoflop else ():
        if parabola.edge:
            lines.append(
                f"At {flops(parabola.budget)} FLOPs: {plain(parabola.edge)}. The minimum is extrapolated and takes"
                " no part in the power laws."
            )
    best, said = found.best_at("grid", "loss"), found.prediction
    if best and said is not None:
        lines.append(
            f"The held-out run costs {said.flops / best[-1][0]:.2g} times the largest fitted budget; the law is"
            " tested no further than that."
        )
        if said.covered is False:
            lines.append("The law missed the held-out run: do not trust its intervals beyond the fitted budgets.")
        if not said.written:
            lines.append("No prediction was written before the held-out run: the one shown was computed afterwards.")
    if len(best) > 1:
        lines.append(f"The fitted budgets span {math.log10(best[-1][0] / best[0][0]):.1f} decades of compute.")
    if found.grid is not None and found.grid.derived_tokens:
        lines.append("The runs do not say how much data they saw, so D is taken from C = 6 N D.")
    return lines


def _capitalised(line: str) -> str:
    """A warning as a sentence; the exponent a is not to become the coefficient A."""
    return f"The exponent {line}" if line.startswith("a ") else line[:1].upper() + line[1:]


def _run_limits(found: Analysis) -> list[str]:
    runs = found.counted
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for run in runs:
        key = tuple(run.get(name) for name in ("kind", "budget", "width", "depth", "params"))
        groups.setdefault(key, []).append(run)
    lines = []
    if groups and max(map(len, groups.values())) == 1:
        lines.append(
            "One seed for each size and budget: scatter between seeds is not measured, only residuals around the law."
        )
    rates = [
        {run["learning_rate"] for run in group if is_number(run.get("learning_rate"))} for group in groups.values()
    ]
    if any(rates) and max(map(len, rates)) == 1:
        lines.append(
            "One learning rate was run for each size and budget; a rate that suits some sizes better than others tilts"
            " the exponent (Porian et al. 2024)."
        )
    repeats = [float(r["epochs"]) for r in runs if is_number(r.get("epochs"))]
    if repeats and max(repeats) > 1:
        lines.append(
            f"The longest run sees its data {count(max(repeats))} times; the law knows no difference between new and"
            " repeated data."
        )
    return lines


def _measure_limits(found: Analysis) -> list[str]:
    """Measures whose best value compute does not visibly better."""
    lines = []
    for measure in described(found):
        for column, side in measure.columns.items():
            best = best_of(found, measure, column)
            if len(best) > 1 and best[0][1] > 0 and best[-1][1] > 0:
                gain = best[0][1] / best[-1][1]
                if (1 / gain if measure.better == "higher" else gain) < 1.25:
                    name = plain(measure.title) + (f", {side}," if side else "")
                    lines.append(
                        f"The best {name} goes from {best[0][1]:.3g} to {best[-1][1]:.3g} over"
                        f" {_times(best[-1][0] / best[0][0])} times the compute: scale alone shows no clear help there."
                    )
    return lines


def tiles(found: Analysis) -> Sequence[tuple[str, str, str]]:
    """(label, figure, remark) of the headline numbers."""
    shown = []
    said = found.prediction
    if said is not None and said.measured is not None:
        shown.append(headline(said))
    if found.fit is not None:
        a = float(found.fit.law.exponent(found.fit.cost))
        interval = found.fit.interval("a")
        shown.append(
            ("best size grows as", f"*C*^{{{a:.2f}}}", f"{LEVEL:.0%} interval {span(interval, 2)}" if interval else "")
        )
    best = sorted(found.best_at("grid", "loss") + found.best_at("heldout", "loss"))
    if len(best) > 1:
        ratio = best[-1][0] / best[0][0]
        shown.append((f"best loss at {_times(ratio)}× compute", f"{best[0][1]:#.3g} → {best[-1][1]:#.3g}", ""))
    for measure in described(found):
        column, side = next(iter(measure.columns.items()))
        if values := best_of(found, measure, column):
            floor = floor_of(found, column)
            parts = (measure.unit, f"ground truth {floor:.2g}" if floor else "")
            label = ", ".join(part for part in (measure.title, side) if part)
            shown.append((label, f"{values[-1][1]:.3g}", "; ".join(part for part in parts if part)))
    return shown[:4]
