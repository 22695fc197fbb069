"""Fits scaling laws to a csv of finished runs: `python -m vdit.scaling.fit RUNS.csv [--json]`.

Chinchilla's approaches 1 (envelope), 2 (parabolas) and 3 (parametric), what repeated data is worth where runs repeat it
(a column unique_tokens), and a power law of any column against compute (--metrics=velocity_in).
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from vdit.command import run_main
from vdit.errors import UserError
from vdit.scaling.laws.envelope import Envelope, fit_envelope
from vdit.scaling.laws.extrapolate import extrapolation, judge
from vdit.scaling.laws.influence import influence, influence_warnings
from vdit.scaling.laws.laws import LEVEL, Cost, fit_law
from vdit.scaling.laws.parabolas import IsoFlop, PowerLaw, fit_isoflop
from vdit.scaling.laws.quality import fit_quality
from vdit.scaling.laws.repetition import REPEATED, fit_repetition
from vdit.scaling.reporting import fit_words
from vdit.scaling.runs import Run, Table, read_csv, table

_NAMES = ("A", "B", "E", "alpha", "beta")
CONVENTIONS = ("counted", "6nd")


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A csv of runs.

    Attributes:
      fitted, held_out: what is fitted, and what the law is judged by (None without such runs).
      runs: the fitted ones with all their columns.
    """

    fitted: Table
    held_out: Table | None
    runs: tuple[Run, ...]


def load(path: str | Path, drop_highest: int = 0, convention: str = "counted") -> Loaded:
    """Reads runs; the `kind` column, if any, says grid or heldout.

    Args:
      path: the csv.
      drop_highest: leave out so many runs of highest loss.
      convention: what C is: the column flops as "counted", or "6nd".

    Raises:
      UserError: if the file or --drop_highest cannot be used.
    """
    runs = read_csv(path)
    grid = [run for run in runs if run.get("kind", "grid") == "grid"] or runs
    held_out = [run for run in runs if run.get("kind") == "heldout"]
    if not 0 <= drop_highest < max(len(grid), 1):
        raise UserError(f"--drop_highest={drop_highest} must leave runs to fit; {path} has {len(grid)}")
    fitted = table(grid, str(path)).drop_highest(drop_highest)
    judged = table(held_out, str(path)) if held_out else None
    if convention == "6nd":
        fitted, judged = fitted.by_6nd(), judged.by_6nd() if judged else None
    kept = {name: run for name, run in zip(table(grid, str(path)).names, grid, strict=True)}
    return Loaded(fitted, judged, tuple(kept[name] for name in fitted.names))


def report(
    loaded: Loaded, bootstraps: int, seed: int = 0, metrics: Sequence[str] = (), floor: float = 0.0
) -> dict[str, Any]:
    """All that --json prints; the keys A, B, E, alpha, beta, a, a_interval, rows are a contract."""
    started = time.monotonic()
    fitted = loaded.fitted
    columns = fitted.flops, fitted.params, fitted.tokens, fitted.loss
    fit = fit_law(fitted.params, fitted.tokens, fitted.loss, flops=fitted.flops, bootstraps=bootstraps, seed=seed)
    few = min(bootstraps, 500)
    isoflop = fit_isoflop(*columns, budgets=fitted.budgets, bootstraps=few, seed=seed)
    found = influence(fitted, fit)
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
        "cost": {
            "factor": fit.cost.factor,
            "exponent": fit.cost.exponent,
            "convention": fitted.convention,
            "a_if_6nd": float(fit.law.exponent(Cost())),
        },
        "approach1": _approach1(fit_envelope(*columns, bootstraps=few, seed=seed)),
        "approach2": _approach2(isoflop),
        "influence": found,
        "repetition": _repetition(loaded, min(bootstraps, 200), seed),
        "quality": [
            fit_quality(loaded.runs, name, floor=floor, bootstraps=bootstraps, seed=seed).describe() for name in metrics
        ],
        "extrapolation": extrapolation(fitted),
        "held_out": judge(fit, fitted, loaded.held_out) if loaded.held_out else [],
        "warnings": [*fit.warnings, *influence_warnings(found, fitted, fit)],
        "seconds": round(time.monotonic() - started, 2),
    }


def _law(found: PowerLaw | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"factor": found.factor, "exponent": found.exponent, "interval": found.interval}


def _approach1(found: Envelope) -> dict[str, Any]:
    laws = {name: _law(getattr(found, name)) for name in ("params", "tokens", "loss")}
    return {**laws, "points": len(found.flops_P), "edges": found.edges}


def _approach2(isoflop: IsoFlop) -> dict[str, Any]:
    return {
        **{name: _law(getattr(isoflop, name)) for name in ("params", "tokens", "loss")},
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


def _repetition(loaded: Loaded, bootstraps: int, seed: int) -> dict[str, Any] | None:
    """What repeats are worth; None where the runs do not say what of their data was unique, or repeat nothing."""
    unique = [run.get("unique_tokens") for run in loaded.runs]
    if not all(isinstance(value, (int, float)) and value > 0 for value in unique):
        return None
    fitted, unique_R = loaded.fitted, np.array(unique, np.float64)
    if (fitted.tokens > REPEATED * unique_R).sum() < 2 or len(fitted) < 8:
        return None
    fit = fit_repetition(fitted.params, fitted.tokens, unique_R, fitted.loss, profiles=bootstraps > 0)
    return {
        **{name: float(getattr(fit.law.law, name)) for name in _NAMES},
        "R_D": fit.law.repeats,
        "R_D_interval": fit.interval("repeats"),
        "R_N": fit.law.excess,
        "R_N_interval": fit.interval("excess"),
        "half_value_epochs": float(fit.law.epochs_until(0.5)),
        "tenth_value_epochs": float(fit.law.epochs_until(0.1)),
        "repeated_rows": fit.repeated,
        "residual_rms": float((fit.residuals_R**2).mean() ** 0.5),
        "warnings": list(fit.warnings),
    }


def main(argv: list[str]) -> None:
    """Entry point."""
    if len(argv) != 2:
        raise UserError("give one file: python -m vdit.scaling.fit RUNS.csv [--json] [--drop_highest=n]")
    values = flags.FLAGS
    loaded = load(argv[1], values.drop_highest, values.flops)
    found = report(loaded, values.bootstraps, values.seed, values.metrics, values.floor)
    print(json.dumps(found, indent=1) if values.json else fit_words.describe(found))


if __name__ == "__main__":  # flags are defined here so that modules with like-named flags can be imported together
    flags.DEFINE_bool("json", False, "print one JSON object")
    flags.DEFINE_integer("drop_highest", 0, "leave out this many runs of highest loss", lower_bound=0)
    flags.DEFINE_enum("flops", "counted", CONVENTIONS, "what C is: the column flops, or 6 N D")
    flags.DEFINE_list("metrics", [], "columns to fit a power law in C to, at the best size of each budget")
    flags.DEFINE_float("floor", 0.0, "best possible value of the metrics, such as that of true clips")
    flags.DEFINE_integer("bootstraps", 4000, "resamples for the intervals", lower_bound=0)
    flags.DEFINE_integer("seed", 0, "of the resampling")
    run_main(main)
