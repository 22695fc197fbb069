"""Fits scaling laws to a csv of finished runs: `python -m vdit.scaling.fit RUNS.csv [--json]`."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

from absl import flags

from vdit.config import UserError, run_main
from vdit.scaling.extrapolate import extrapolation, judge
from vdit.scaling.laws import LEVEL, fit_law
from vdit.scaling.parabolas import IsoFlop, PowerLaw, fit_isoflop
from vdit.scaling.runs import Table, read_csv, table

_NAMES = ("A", "B", "E", "alpha", "beta")


def load(path: str | Path, drop_highest: int = 0) -> tuple[Table, Table | None]:
    """(runs to fit, held-out runs or None) of a csv; its `kind` column, if any, says grid or heldout.

    Raises:
      UserError: if the file or --drop_highest cannot be used.
    """
    runs = read_csv(path)
    grid = [run for run in runs if run.get("kind", "grid") == "grid"] or runs
    held_out = [run for run in runs if run.get("kind") == "heldout"]
    if not 0 <= drop_highest < max(len(grid), 1):
        raise UserError(f"--drop_highest={drop_highest} must leave runs to fit; {path} has {len(grid)}")
    fitted = table(grid, str(path)).drop_highest(drop_highest)
    return fitted, table(held_out, str(path)) if held_out else None


def report(fitted: Table, held_out: Table | None, bootstraps: int, seed: int = 0) -> dict[str, Any]:
    """All that --json prints; the keys A, B, E, alpha, beta, a, a_interval, rows are a contract."""
    started = time.monotonic()
    fit = fit_law(fitted.params, fitted.tokens, fitted.loss, flops=fitted.flops, bootstraps=bootstraps, seed=seed)
    isoflop = fit_isoflop(fitted.flops, fitted.params, fitted.tokens, fitted.loss, budgets=fitted.budgets, seed=seed)
    return {
        **{name: float(getattr(fit.law, name)) for name in _NAMES},
        "a": float(fit.law.exponent(fit.cost)),
        "a_interval": fit.interval("a"),
        "rows": fit.rows,
        "intervals": {name: fit.interval(name) for name in _NAMES},
        "level": LEVEL,
        "bootstraps": len(fit.resamples.alpha),
        "residual_rms": float((fit.residuals_R**2).mean() ** 0.5),
        "objective": fit.objective,
        "cost": {"factor": fit.cost.factor, "exponent": fit.cost.exponent, "convention": fitted.convention},
        "approach2": _approach2(isoflop),
        "extrapolation": extrapolation(fitted),
        "held_out": judge(fit, fitted, held_out) if held_out else [],
        "warnings": list(fit.warnings),
        "seconds": round(time.monotonic() - started, 2),
    }


def _approach2(isoflop: IsoFlop) -> dict[str, Any]:
    def law(found: PowerLaw | None) -> dict[str, Any] | None:
        if found is None:
            return None
        return {"factor": found.factor, "exponent": found.exponent, "interval": found.interval}

    return {
        "params": law(isoflop.params),
        "tokens": law(isoflop.tokens),
        "loss": law(isoflop.loss),
        "unused_rows": isoflop.unused,
        "budgets": [
            {
                "flops": p.budget,
                "rows": len(p.rows),
                "params": None if math.isnan(p.params) else p.params,
                "loss": None if math.isnan(p.loss) else p.loss,
                "edge": p.edge,
            }
            for p in isoflop.parabolas
        ],
    }


def describe(found: dict[str, Any]) -> str:
    """The result for a reader at a terminal."""

    def span(interval: Any) -> str:
        return "" if interval is None else f"   [{interval[0]:.4g}, {interval[1]:.4g}]"

    lines = [
        (
            f"L(N, D) = E + A / N^alpha + B / D^beta, {found['rows']} runs, {found['level']:.0%} intervals from "
            f"{found['bootstraps']} bootstraps"
        ),
        f"FLOPs: {found['cost']['convention']}",
        *(f"  {name:<6}{found[name]:<10.4g}{span(found['intervals'][name])}" for name in _NAMES),
        f"N_opt ~ C^a:  a = {found['a']:.4f}{span(found['a_interval'])}",
        f"residuals: {found['residual_rms']:.2%} of the loss (root mean square)",
    ]
    second = found["approach2"]
    if second["params"]:
        law = second["params"]
        lines.append(f"parabolas:    a = {law['exponent']:.4f}{span(law['interval'])}")
    for budget in second["budgets"]:
        size = "none" if budget["params"] is None else f"{budget['params']:.3g}"
        flag = f"   ({budget['edge']})" if budget["edge"] else ""
        lines.append(f"  C = {budget['flops']:.2e}  {budget['rows']:3d} runs  N_opt = {size}{flag}")
    for row in found["extrapolation"]:
        lines.append(
            f"C = {row['budget']:.2e} predicted from smaller budgets: best run {row['best_error']:+.2%}, "
            f"carrying the last value forward {row['baseline_best_error']:+.2%}"
        )
    for row in found["held_out"]:
        lines.append(
            f"held out {row['run']}: predicted {row['predicted']:.4g}{span(row['interval'])}, measured"
            f" {row['measured']:.4g} ({row['error']:+.2%}); carrying the last value forward"
            f" {row['baseline_error']:+.2%}"
        )
    return "\n".join(lines + [f"warning: {line}" for line in found["warnings"]])


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) != 2:
        raise UserError("give one file: python -m vdit.scaling.fit RUNS.csv [--json] [--drop_highest=n]")
    fitted, held_out = load(argv[1], flags.FLAGS.drop_highest)
    found = report(fitted, held_out, flags.FLAGS.bootstraps, flags.FLAGS.seed)
    print(json.dumps(found, indent=1) if flags.FLAGS.json else describe(found))


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_bool("json", False, "print one JSON object")
    flags.DEFINE_integer("drop_highest", 0, "leave out this many runs of highest loss", lower_bound=0)
    flags.DEFINE_integer("bootstraps", 4000, "resamples for the intervals", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the resampling")
    run_main(main)
