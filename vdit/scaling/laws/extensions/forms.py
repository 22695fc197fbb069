"""Other forms of the law, compared by what they predict for budgets they were not fitted to.

A form with more coefficients always fits better; whether it is nearer to the truth shows on larger budgets only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from vdit.scaling.laws.approaches.parabolas import group_budgets
from vdit.scaling.laws.approaches.parametric import HUBER_DELTA, MIN_ROWS
from vdit.scaling.laws.estimation import robust
from vdit.scaling.runs import Table

_STEP = 1e-20  # of the complex steps, which have no rounding error (Squire & Trapp 1998)
_FOLDS = 3  # of the largest budgets, each predicted from all smaller ones
_DRAWN, _STARTS = 1000, 12  # coefficients drawn at random, and the best of them that are descended from
_SHARPNESS = 0.3  # of the bend of the broken law, in decades or so


@dataclasses.dataclass(frozen=True)
class Shape:
    """A law log L(log N, log D), both centred.

    Attributes:
      name, formula: as printed.
      log_loss: (theta_KP, x_R, y_R) -> (K, R); complex coefficients give complex values.
      bounds_P2: of the coefficients.
    """

    name: str
    formula: str
    log_loss: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    bounds_P2: np.ndarray

    def model(self, x_R: np.ndarray, y_R: np.ndarray) -> robust.Model:
        """Values and derivatives for the minimiser."""

        def values(theta_KP: np.ndarray, _: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            inside = np.clip(theta_KP, *self.bounds_P2.T)
            slopes = np.empty((*theta_KP.shape, len(x_R)))
            for place in range(theta_KP.shape[1]):
                moved = inside.astype(np.complex128)
                moved[:, place] += 1j * _STEP
                slopes[:, place] = self.log_loss(moved, x_R, y_R).imag / _STEP
            slopes[inside != theta_KP] = 0
            return self.log_loss(inside, x_R, y_R), slopes

        return values


def _chinchilla(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, e, alpha, beta = theta.T[..., None]
    return np.log(np.exp(e) + np.exp(a - alpha * x) + np.exp(b - beta * y))


def _no_floor(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, alpha, beta = theta.T[..., None]
    return np.log(np.exp(a - alpha * x) + np.exp(b - beta * y))


def _kaplan(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    n, d, alpha, beta = theta.T[..., None]
    return beta * np.log(np.exp(alpha / beta * (n - x)) + np.exp(d - y))


def _broken(theta: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    a, b, e, alpha, beta, place, more = theta.T[..., None]
    bend = more * _SHARPNESS * np.log(1 + np.exp((y - place) / _SHARPNESS))
    return np.log(np.exp(e) + np.exp(a - alpha * x) + np.exp(b - beta * y - bend))


_LOG, _EXPONENT = (-8.0, 2.0), (0.02, 2.5)
SHAPES = (
    Shape("Chinchilla", "E + A/N^alpha + B/D^beta", _chinchilla, np.array([_LOG, _LOG, _LOG, _EXPONENT, _EXPONENT])),
    Shape("without E", "A/N^alpha + B/D^beta", _no_floor, np.array([_LOG, _LOG, _EXPONENT, _EXPONENT])),
    Shape(
        "Kaplan",
        "((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D",
        _kaplan,
        np.array([(-15.0, 15.0), (-15.0, 15.0), (0.01, 1.5), (0.01, 1.5)]),
    ),
    Shape(
        "broken",
        "E + A/N^alpha + B/D^beta (1 + (D/D_1)^(1/f))^(-c f)",
        _broken,
        np.array([_LOG, _LOG, _LOG, _EXPONENT, _EXPONENT, (-4.0, 4.0), (-0.5, 1.5)]),
    ),
)


def compare(runs: Table) -> list[dict[str, Any]]:
    """Every form's error on held-out budgets, the best first.

    Each of the largest budgets is predicted by a fit to all smaller ones.

    Returns:
      {"form", "formula", "coefficients", "budgets", "held_out_error", "best_error", "residual_rms"}: mean |error| over
      the held-out runs, and over the best of each budget; and the residuals of a fit to all runs, which are not to be
      judged by. Empty where there are too few budgets.
    """
    groups = group_budgets(runs.flops, runs.budgets)
    folds = []
    for place in range(max(len(groups) - _FOLDS, 2), len(groups)):
        before = np.sort(np.concatenate([rows for _, rows in groups[:place]]))
        if len(before) > MIN_ROWS + 2 and min(len(np.unique(v[before])) for v in (runs.params, runs.tokens)) > 2:
            folds.append((before, groups[place][1]))
    if not folds:
        return []
    found = []
    for shape in SHAPES:
        errors, best = [], []
        for before, here in folds:
            off = np.exp(_predict(shape, runs, before, here)) / runs.loss[here] - 1
            errors.append(np.abs(off))
            best.append(abs(float(off[runs.loss[here].argmin()])))
        everything = np.arange(len(runs))
        residual = _predict(shape, runs, everything, everything) - np.log(runs.loss)
        found.append(
            {
                "form": shape.name,
                "formula": shape.formula,
                "coefficients": len(shape.bounds_P2),
                "budgets": len(folds),
                "held_out_error": float(np.concatenate(errors).mean()),
                "best_error": float(np.mean(best)),
                "residual_rms": float(np.sqrt((residual**2).mean())),
            }
        )
    return sorted(found, key=lambda row: row["held_out_error"])


def _predict(shape: Shape, runs: Table, fitted: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Log losses of the runs `wanted` by the form fitted to the runs `fitted`."""
    x, y, z = np.log(runs.params), np.log(runs.tokens), np.log(runs.loss)
    x0, y0, z0 = (values[fitted].mean() for values in (x, y, z))
    rng = np.random.default_rng(0)
    low, high = shape.bounds_P2.T
    starts = rng.uniform(low, high, (_DRAWN, len(low)))
    with np.errstate(all="ignore"):
        values = shape.log_loss(starts, x[fitted] - x0, y[fitted] - y0)
        off = np.abs(values - (z[fitted] - z0)).sum(-1)
    starts = starts[np.argsort(np.where(np.isfinite(off), off, np.inf), kind="stable")[:_STARTS]]
    ends, losses = robust.minimise(
        shape.model(x[fitted] - x0, y[fitted] - y0),
        z[fitted] - z0,
        starts,
        np.ones((1, len(fitted))),
        delta=HUBER_DELTA,
        bounds_P2=shape.bounds_P2,
    )
    best = np.clip(ends[[losses.argmin()]], low, high)
    return shape.log_loss(best, x[wanted] - x0, y[wanted] - y0)[0] + z0
