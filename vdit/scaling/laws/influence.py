"""How much a fitted law hangs on single runs: the exponent without each of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from vdit.scaling.laws.laws import Fit, leave_one_out
from vdit.scaling.runs import Table

SHOWN = 5


def influence(runs: Table, fit: Fit) -> list[dict[str, Any]]:
    """The runs that the exponent a depends on most, the strongest first.

    Each is left out in turn and the law fitted again, from where the whole fit ended (as Cook 1977 does for linear
    models). "residual" is log measured - log fitted loss of the whole fit.
    """
    laws = leave_one_out(runs.params, runs.tokens, runs.loss, fit)
    moved = np.asarray(laws.exponent(fit.cost)) - float(fit.law.exponent(fit.cost))
    order = np.argsort(-np.abs(moved), kind="stable")[:SHOWN]
    return [{"run": runs.names[i], "a_moves": float(moved[i]), "residual": float(fit.residuals_R[i])} for i in order]


def influence_warnings(found: list[dict[str, Any]], runs: Table, fit: Fit) -> list[str]:
    """Runs that move the exponent by more than half of its interval's half width, and runs far from the law."""
    lines = []
    interval = fit.interval("a")
    if interval is not None:
        reach = (interval[1] - interval[0]) / 4
        strong = [row for row in found if abs(row["a_moves"]) > reach]
        if strong:
            names = ", ".join(row["run"] for row in strong)
            lines.append(f"a hangs on single runs: without {names} it moves by {strong[0]['a_moves']:+.3f} or less")
    scale = 1.4826 * float(np.median(np.abs(fit.residuals_R)))  # of normal residuals their standard deviation
    far = np.flatnonzero(np.abs(fit.residuals_R) > 6 * scale) if scale else np.zeros(0, int)
    if len(far):
        names = ", ".join(runs.names[i] for i in far[:SHOWN]) + (" and more" if len(far) > SHOWN else "")
        lines.append(f"outliers, more than 6 robust standard deviations from the law: {names}")
    return lines
