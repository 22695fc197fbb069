"""How the exponent hangs on choices that a paper must state: which runs, which loss of the fit, which FLOPs.

After the checklist of Li et al. 2025, "(Mis)Fitting: a survey of scaling laws" (arXiv 2502.18969).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.parabolas import group_budgets
from vdit.scaling.laws.approaches.parametric import Fit, Form, fit_law
from vdit.scaling.laws.law import Cost
from vdit.scaling.runs import Table

_RATIOS = (0.0, 1.0, 2.0, 5.0)
_EXCESS = (1.0, 0.5, 0.25)
_DELTAS = (1e-4, 1e-3, 1e-2, 1e-1)


def sensitivity(runs: Table, fit: Fit) -> list[dict[str, Any]]:
    """One row a choice: {"choice", "rows", "a", "E", "alpha", "beta"}; without the numbers where no law can be fitted.

    Excess is the loss above the lowest one of the runs with at most 1.5 times the FLOPs, as a share of it.
    """
    return [_row(choice, part, form, cost) for choice, part, form, cost in _choices(runs, fit)]


def _choices(runs: Table, fit: Fit) -> Iterator[tuple[str, Table, Form, Cost]]:
    given = fit.form
    yield "as reported", runs, given, fit.cost
    ratio = runs.tokens / runs.params
    for least in _RATIOS:
        if (ratio < least).any():
            yield f"D/N at least {least:g}", runs.pick(ratio >= least), given, fit.cost
    excess = _excess(runs)
    for most in _EXCESS:
        if (excess > most).any():
            yield f"excess loss at most {most:.0%}", runs.pick(excess <= most), given, fit.cost
    groups = group_budgets(runs.flops, runs.budgets)
    if len(groups) > 3:
        for words, dropped in (("lowest", groups[0][1]), ("highest", groups[-1][1])):
            yield f"without the {words} budget", runs.pick(np.setdiff1d(np.arange(len(runs)), dropped)), given, fit.cost
        half = np.sort(np.concatenate([rows for _, rows in groups[len(groups) // 2 :]]))
        yield "the upper half of the budgets", runs.pick(half), given, fit.cost
    for delta in _DELTAS:
        yield f"Huber's delta {delta:g}", runs, dataclasses.replace(given, estimator="huber", delta=delta), fit.cost
    yield "least squares of the loss", runs, dataclasses.replace(given, estimator="squares"), fit.cost
    if not given.tied:
        yield "alpha = beta", runs, dataclasses.replace(given, tied=True), fit.cost
    if fit.cost.exponent != 1:
        yield "C = 6 N D", runs, given, Cost()


def _excess(runs: Table) -> np.ndarray:
    """Loss of each run over the lowest among those of about as many FLOPs or fewer, less 1."""
    best = np.array([runs.loss[runs.flops <= 1.5 * flops].min() for flops in runs.flops])
    return runs.loss / best - 1


def _row(choice: str, runs: Table, form: Form, cost: Cost) -> dict[str, Any]:
    row: dict[str, Any] = {"choice": choice, "rows": len(runs)}
    try:
        law = fit_law(runs.params, runs.tokens, runs.loss, bootstraps=0, starts=10, form=form).law
    except UserError:
        return row
    return row | {"a": float(law.exponent(cost)), "E": float(law.E), "alpha": float(law.alpha), "beta": float(law.beta)}
