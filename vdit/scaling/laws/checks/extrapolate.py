"""What a law says about runs it was not fitted to, beside the plainest guess: that nothing improves any more."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np

from vdit.scaling.laws.approaches.parabolas import group_budgets
from vdit.scaling.laws.approaches.parametric import MIN_ROWS, Fit, fit_law
from vdit.scaling.laws.law import LEVEL
from vdit.scaling.runs import Table

MOST = 8  # budgets that are predicted from smaller ones


def carried_forward(runs: Table) -> float:
    """The baseline: the lowest loss at the largest budget that was fitted."""
    _, rows = group_budgets(runs.flops, runs.budgets)[-1]
    return float(runs.loss[rows].min())


def predict_held_out(
    runs: Table, flops: float, params: float, tokens: float, run: str, seed: int = 0
) -> dict[str, Any]:
    """The content of prediction.json, to be written before the held-out run starts.

    Args:
      runs: the grid, without the held-out run.
      flops, params, tokens: C, N and D of the held-out run.
      run: its name.
      seed: of the bootstrap.

    Returns:
      {"flops", "run", "params", "tokens", "predicted_loss", "interval", "level", "baseline_loss", "rows", "written"}.
    """
    fit = fit_law(runs.params, runs.tokens, runs.loss, flops=runs.flops, seed=seed)
    predicted, interval = fit.predict(params, tokens, seed)
    return {
        "flops": flops,
        "run": run,
        "params": params,
        "tokens": tokens,
        "predicted_loss": predicted,
        "interval": interval,
        "level": LEVEL,
        "baseline_loss": carried_forward(runs),
        "rows": len(runs),
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def judge(fit: Fit, fitted: Table, held_out: Table) -> list[dict[str, Any]]:
    """Predicted against measured loss of each held-out run; errors are (predicted - measured) / measured."""
    baseline = carried_forward(fitted)
    found = []
    for row, name in enumerate(held_out.names):
        predicted, interval = fit.predict(held_out.params[row], held_out.tokens[row])
        measured = float(held_out.loss[row])
        found.append(
            {
                "run": name,
                "flops": float(held_out.flops[row]),
                "measured": measured,
                "predicted": predicted,
                "interval": interval,
                "covered": interval is not None and interval[0] <= measured <= interval[1],
                "error": predicted / measured - 1,
                "baseline": baseline,
                "baseline_error": baseline / measured - 1,
            }
        )
    return found


def extrapolation(runs: Table) -> list[dict[str, Any]]:
    """How a law fitted to the smaller budgets would have predicted each larger one.

    For each of the `MOST` largest budgets, from the third on, whose predecessors hold `MIN_ROWS` runs: the mean |error|
    over its runs, the error at its best run, and what the baseline of the last smaller budget misses that best run by.
    """
    groups = group_budgets(runs.flops, runs.budgets)
    found = []
    for place in range(max(2, len(groups) - MOST), len(groups)):
        before = runs.pick(np.sort(np.concatenate([rows for _, rows in groups[:place]])))
        here = runs.pick(groups[place][1])
        if len(before) < MIN_ROWS or min(len(np.unique(before.params)), len(np.unique(before.tokens))) < 2:
            continue
        law = fit_law(before.params, before.tokens, before.loss, bootstraps=0, starts=8).law
        errors = law.loss(here.params, here.tokens) / here.loss - 1
        best = int(here.loss.argmin())
        found.append(
            {
                "budget": groups[place][0],
                "fitted_rows": len(before),
                "rows": len(here),
                "mean_abs_error": float(np.abs(errors).mean()),
                "best_error": float(errors[best]),
                "baseline_best_error": float(carried_forward(before) / here.loss[best] - 1),
            }
        )
    return found
