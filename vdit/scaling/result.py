"""All that `vdit.scaling.fit` finds in a table of runs, as --json prints it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vdit.scaling.laws.answers import at_budget, has_optimum, with_inference
from vdit.scaling.laws.approaches.envelope import Envelope, fit_envelope
from vdit.scaling.laws.approaches.parabolas import IsoFlop, PowerLaw, fit_isoflop
from vdit.scaling.laws.approaches.parametric import Form, fit_law
from vdit.scaling.laws.checks.diagnose import diagnose
from vdit.scaling.laws.checks.extrapolate import extrapolation, judge
from vdit.scaling.laws.checks.influence import influence, influence_warnings
from vdit.scaling.laws.checks.sensitivity import sensitivity
from vdit.scaling.laws.extensions import forms
from vdit.scaling.laws.extensions.arms import fit_arms
from vdit.scaling.laws.extensions.quality import Quality, fit_quality
from vdit.scaling.laws.extensions.repetition import REPEATED, fit_repetition
from vdit.scaling.laws.law import LEVEL, NAMES, Cost, Law
from vdit.scaling.loading import Loaded

_DRAWS = 500  # of approaches 1 and 2


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is wanted beside the three approaches.

    Attributes:
      form: of approach 3.
      metrics: columns to fit a power law in C to.
      floor: their best possible value; None fits it.
      budgets: C at which N, D, loss and metrics are predicted.
      served: tokens that the model will serve, for the optimum under inference demand; 0 for none.
      arms: column that tells arms apart, "" for none.
      reference: the arm that others are compared with, "" for the one with most runs.
      shared: whether arms share E, alpha and beta.
      base: law of data seen once, on top of which repetition is fitted; None fits it along.
    """

    form: Form = Form()
    metrics: Sequence[str] = ()
    floor: float | None = 0.0
    budgets: Sequence[float] = ()
    served: float = 0.0
    arms: str = ""
    reference: str = ""
    shared: bool = True
    base: Law | None = None


def report(loaded: Loaded, bootstraps: int, seed: int = 0, asked: Asked = Asked()) -> dict[str, Any]:
    """All that --json prints; the keys A, B, E, alpha, beta, a, a_interval, rows are a contract."""
    started = time.monotonic()
    fitted = loaded.fitted
    columns = fitted.flops, fitted.params, fitted.tokens, fitted.loss
    arms = _arms(loaded, asked, bootstraps, seed) if asked.arms else None
    qualities = [
        fit_quality(loaded.runs, name, floor=asked.floor, bootstraps=bootstraps, seed=seed) for name in asked.metrics
    ]
    fit = fit_law(*columns[1:], flops=fitted.flops, bootstraps=bootstraps, seed=seed, form=asked.form)
    few = min(bootstraps, _DRAWS)
    isoflop = fit_isoflop(*columns, budgets=fitted.budgets, bootstraps=few, seed=seed, fit=fit)
    envelope = fit_envelope(*columns, bootstraps=few, seed=seed, fit=fit)
    strongest = influence(fitted, fit)
    largest = float(fitted.flops.max())
    served = (asked.budgets or (largest,)) if asked.served else ()
    without = sorted({c for c in (*asked.budgets, *served) if not has_optimum(fit, c)})
    predictions = [at_budget(fit, c, seed) | _metrics(qualities, c) for c in asked.budgets if c not in without]
    return {
        **{name: float(getattr(fit.law, name)) for name in NAMES},
        "a": float(fit.law.exponent(fit.cost)),
        "a_interval": fit.interval("a"),
        "rows": fit.rows,
        "intervals": {name: fit.interval(name) for name in NAMES},
        "level": LEVEL,
        "bootstraps": len(fit.resamples.alpha),
        "estimator": fit.form.estimator,
        "form": {"tied": fit.form.tied, "floor": fit.form.floor, "delta": fit.form.delta},
        "residual_rms": float((fit.residuals_R**2).mean() ** 0.5),
        "objective": fit.objective,
        "cost": {
            "factor": fit.cost.factor,
            "exponent": fit.cost.exponent,
            "convention": fitted.convention,
            "a_if_6nd": float(fit.law.exponent(Cost())),
        },
        "approach1": _approach1(envelope),
        "approach2": _approach2(isoflop),
        "influence": strongest,
        "sensitivity": sensitivity(fitted, fit),
        "forms": forms.compare(fitted),
        "predictions": predictions,
        "serving": [with_inference(fit, c, asked.served) for c in served if c not in without],
        "arms": arms,
        "repetition": _repetition(loaded, asked.base, bootstraps),
        "quality": [quality.describe() for quality in qualities],
        "extrapolation": extrapolation(fitted),
        "held_out": judge(fit, fitted, loaded.held_out) if loaded.held_out else [],
        "notes": list(loaded.notes),
        "warnings": [
            *loaded.warnings,
            *diagnose(fitted, fit, isoflop, envelope),
            *influence_warnings(strongest, fit),
            *_repeats(loaded),
            *(f"the fitted law has no best size at C = {c:.3g}: nothing is predicted there" for c in without),
        ],
        "seconds": round(time.monotonic() - started, 2),
    }


def _law(found: PowerLaw | None) -> dict[str, Any] | None:
    return None if found is None else dataclasses.asdict(found)


def _approach1(found: Envelope) -> dict[str, Any]:
    laws = {name: _law(getattr(found, name)) for name in ("params", "tokens", "loss")}
    return {**laws, "points": len(found.flops_P), "edges": found.edges, "without": found.without}


def _approach2(isoflop: IsoFlop) -> dict[str, Any]:
    return {
        **{name: _law(getattr(isoflop, name)) for name in ("params", "tokens", "loss", "akima")},
        "without": isoflop.without,
        "unused_rows": isoflop.unused,
        "budgets": [
            {
                "flops": p.budget,
                "rows": len(p.rows),
                "near": len(p.window),
                "params": None if math.isnan(p.params) else p.params,
                "loss": None if math.isnan(p.loss) else p.loss,
                "edge": p.edge,
            }
            for p in isoflop.parabolas
        ],
    }


def _metrics(qualities: Sequence[Quality], budget: float) -> dict[str, Any]:
    """The metrics' laws at a budget."""
    found = {}
    for quality in qualities:
        value, interval = quality.predict(budget)
        found[quality.metric] = {"value": value, "interval": interval}
    return {"metrics": found} if found else {}


def _arms(loaded: Loaded, asked: Asked, bootstraps: int, seed: int) -> dict[str, Any]:
    """Laws of the arms, and what each saves at the asked budgets, else at the largest that was run."""
    fitted = loaded.fitted
    found = fit_arms(
        fitted.params, fitted.tokens, fitted.loss, [_arm(run, asked.arms) for run in loaded.runs],
        reference=asked.reference, shared=asked.shared, flops=fitted.flops, bootstraps=min(bootstraps, 1000), seed=seed,
    )  # fmt: skip
    budgets = asked.budgets or (float(fitted.flops.max()),)
    return {
        "column": asked.arms,
        "reference": found.names[0],
        "shared": found.shared,
        "paired_rows": found.paired,
        "laws": {
            name: {key: float(getattr(fit.law, key)) for key in NAMES} | {"rows": fit.rows}
            for name, fit in zip(found.names, found.fits, strict=True)
        },
        "saved": [found.saved(name, float(budget)) for budget in budgets for name in found.names[1:]],
        "warnings": list(found.warnings),
    }


def _arm(run: Mapping[str, Any], column: str) -> str:
    return str(run.get(column, "none"))


def _unique(loaded: Loaded) -> np.ndarray | None:
    """Unique tokens of every run; None where they are not known, or hardly a run repeats them."""
    unique = [run.get("unique_tokens") for run in loaded.runs]
    if not all(isinstance(value, (int, float)) and value > 0 for value in unique):
        return None
    unique_R = np.array(unique, np.float64)
    return unique_R if (loaded.fitted.tokens > REPEATED * unique_R).sum() > 1 and len(unique_R) >= 8 else None


def _repeats(loaded: Loaded) -> list[str]:
    unique_R = _unique(loaded)
    if unique_R is None:
        return []
    worn = int((loaded.fitted.tokens > 4 * unique_R).sum())
    if not worn:
        return []
    return [f"{worn} runs see their data more than four times: approaches 1 to 3 count every token as new"]


def _repetition(loaded: Loaded, base: Law | None, bootstraps: int) -> dict[str, Any] | None:
    """What repeats are worth; None where the runs do not say what of their data was unique, or repeat nothing."""
    unique_R = _unique(loaded)
    if unique_R is None:
        return None
    fitted = loaded.fitted
    fit = fit_repetition(
        fitted.params, fitted.tokens, unique_R, fitted.loss, base=base, profiles=bootstraps > 0
    )  # fmt: skip
    return {
        **{name: float(getattr(fit.law.law, name)) for name in NAMES},
        "base": "given" if base else "fitted along",
        "R_D": fit.law.repeats,
        "R_D_interval": fit.interval("repeats"),
        "R_N": fit.law.excess,
        "R_N_interval": fit.interval("excess"),
        "half_value_epochs": float(fit.law.epochs_until(0.5)),
        "tenth_value_epochs": float(fit.law.epochs_until(0.1)),
        "repeated_rows": fit.repeated,
        "objective": fit.objective,
        "starts_agreeing": fit.agreeing,
        "residual_rms": float((fit.residuals_R**2).mean() ** 0.5),
        "warnings": list(fit.warnings),
    }
