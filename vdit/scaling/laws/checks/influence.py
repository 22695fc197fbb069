"""How much a fitted law hangs on single runs: the exponent without each of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vdit.scaling.laws.approaches.parametric import Fit, leave_one_out, leverage
from vdit.scaling.runs import Table

SHOWN = 5
_REFITTED = 300  # runs, at most, without which the law is fitted again
_STRONG = 2.0  # half widths of the interval


def influence(runs: Table, fit: Fit) -> list[dict[str, Any]]:
    """The runs that the exponent a depends on most, the strongest first.

    Each is left out in turn and the law fitted again, from where the whole fit ended (as Cook 1977 does for linear
    models); of more than 300 runs, those that one Newton step says pull most. "residual" is log measured - log fitted
    loss of the whole fit.
    """
    columns = runs.params, runs.tokens, runs.loss
    tried = np.arange(len(runs))
    if len(runs) > _REFITTED:
        tried = np.sort(np.argsort(-np.abs(leverage(*columns, fit)), kind="stable")[:_REFITTED])
    laws = leave_one_out(*columns, fit, tried)
    moved = np.asarray(laws.exponent(fit.cost)) - float(fit.law.exponent(fit.cost))
    order = np.argsort(-np.abs(moved), kind="stable")[:SHOWN]
    return [
        {"run": runs.names[tried[i]], "a_moves": float(moved[i]), "residual": float(fit.residuals_R[tried[i]])}
        for i in order
    ]


def influence_warnings(found: list[dict[str, Any]], fit: Fit) -> list[str]:
    """Runs that move the exponent farther than noise alone lets any run of a sound design do."""
    interval = fit.interval("a")
    if interval is None:
        return []
    reach = _STRONG * (interval[1] - interval[0]) / 2
    strong = [row for row in found if abs(row["a_moves"]) > reach]
    if not strong:
        return []
    names = ", ".join(row["run"] for row in strong)
    return [f"a hangs on single runs: without {names} it moves by {strong[0]['a_moves']:+.3f} or less"]
