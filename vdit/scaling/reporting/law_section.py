"""The section of the fitted law: coefficients, exponents of all approaches, figures, and how they depend on choices."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vdit.io import formatting
from vdit.io.formatting import percent
from vdit.render.pages import Block, Pending, Row, Section, Table, Text, code, plain
from vdit.scaling.laws.law import LEVEL, Cost
from vdit.scaling.reporting import law_figures
from vdit.scaling.reporting.analysis import Analysis
from vdit.scaling.reporting.fit_words import largest
from vdit.scaling.reporting.provenance import chart, unit

_FELT = 0.001  # a move of the exponent that is worth a word


def law(found: Analysis) -> Iterator[Section]:
    fit = found.fit
    if fit is None:
        yield Section("law", "The fitted law", [Pending(f"not fitted yet: {plain(found.unfitted)}")])
        return
    assert found.grid is not None
    cost, own = found.grid.convention, any("params_total" in run for run in found.study.runs)
    counts = "N counts parameters without the input, text and output projections; " if own else ""
    how = "the summed Huber loss of log L"
    if fit.form.estimator == "squares":
        how = "least squares of L, as residuals are no heavier-tailed than normal ones"
    blocks: list[Block] = [
        Text(
            f"L(N, D) = E + A / N^{{α}} + B / D^{{β}}, fitted to {fit.rows} runs by {how}."
            f" {counts}D counts {unit(found)}. FLOPs: {plain(cost)}; along the grid"
            f" C = {fit.cost.factor:.3g} N^{{{fit.cost.exponent:.2f}}} D."
        ),
        Table(["", "value", f"{LEVEL:.0%} interval", "meaning"], _coefficients(found), words=(3,)),
    ]
    if found.influence:
        blocks.append(Text(f"The most influential runs: {influential(found.influence)}."))
    drawn = [
        ("best-size", law_figures.best_params, "**The best size** for each budget, by the law and by the parabolas."),
        ("best-data", law_figures.best_tokens, "**The data that the best size sees**, by the same law."),
        (
            *("contours", law_figures.contours),
            "**Lines of equal loss.** Points are runs in the colour of their loss; the dotted line is the best size.",
        ),
        (
            *("residuals", law_figures.residuals),
            "**What the law misses.** Runs beyond three spreads of the others are marked; a trend says that the form of"
            " the law does not fit.",
        ),
    ]
    made = [chart(name, found, make, caption, "runs.csv") for name, make, caption in drawn]
    blocks.append(Row([each for each in made if each.chart is not None]))
    again = f"Again: {code(shlex.join(['python', '-m', 'vdit.scaling.fit', found.table]))}"
    yield Section("law", "The fitted law", [*blocks, *_choices(found), Text(again, small=True)])


def influential(rows: Sequence[Mapping[str, Any]]) -> str:
    """The runs without which the exponent moves most, and how far, if its third decimal moves at all."""
    strong = [row for row in rows[:3] if abs(row["a_moves"]) >= _FELT]
    if not strong:
        return "left out, no run moves the exponent by 0.001"
    moves = "; ".join(f"{code(row['run'])} {row['a_moves']:+.2g}" for row in strong)
    return f"left out, these move the exponent most: {moves}"


def _choices(found: Analysis) -> Iterator[Block]:
    """What the exponent is by other choices, and how other forms of the law do."""
    if found.sensitivity:
        rows = [
            [
                plain(row["choice"]),
                str(row["rows"]),
                *(f"{row[name]:.4g}" if name in row else "" for name in ("a", "E")),
            ]
            for row in found.sensitivity
        ]
        yield Text("The exponent and the irreducible loss by other choices of runs, of the fit and of FLOPs:")
        yield Table(["choice", "runs", "a", "E"], rows)
    if found.forms:
        rows = [
            [plain(row["form"]), percent(row["held_out_error"]), percent(row["best_error"]), code(row["formula"])]
            for row in found.forms
        ]
        yield Text(f"Other forms, by their mean error on {largest(found.forms[0]['budgets'])} from smaller ones:")
        yield Table(["form", "error", "of the best run", "loss"], rows, words=(3,))


def _coefficients(found: Analysis) -> list[list[str]]:
    """The law's coefficients and the exponent by every approach."""
    fit = found.fit
    assert fit is not None
    meaning = {
        "E": "loss that no size and no data removes",
        "A": "weight of the size term",
        "alpha": "exponent of N",
        "B": "weight of the data term",
        "beta": "exponent of D",
    }
    rows = [
        [f"*{name}*", f"{getattr(fit.law, name):.4g}", formatting.span(fit.interval(name)), text]
        for name, text in meaning.items()
    ]
    a = float(fit.law.exponent(fit.cost))
    rows.append(["*a*", f"{a:.3f}", formatting.span(fit.interval("a")), "the best N grows as C^{a}"])
    for approach, approached, text in (
        ("parabolas", found.isoflop, "the same from the minima of the parabolas"),
        ("envelope", found.envelope, "the same from the lowest loss over all sizes at each amount of compute"),
    ):
        if approached and (line := approached.params):
            remarks = [text]
            if line.bias is not None:
                corrected = " (the interval is corrected for it)" if line.interval else ""
                remarks.append(f"were the fitted law true, it would miss *a* by {line.bias:+.3f}{corrected}")
            if approached.without:
                remarks.append(f"no interval: {plain(approached.without)}")
            span = formatting.span(line.interval)
            rows.append([f"*a*, {approach}", f"{line.exponent:.3f}", span, "; ".join(remarks)])
    if found.isoflop and (akima := found.isoflop.akima):
        rows.append(["*a*, Akima", f"{akima.exponent:.3f}", "", "the same by interpolation between the sizes"])
    if fit.cost.exponent != 1:
        rows.append(["*a*, were C = 6ND", f"{float(fit.law.exponent(Cost())):.3f}", "", "the same law at C = 6 N D"])
    return rows
