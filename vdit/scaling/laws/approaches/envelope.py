"""The envelope of loss against compute over model sizes (Chinchilla's approach 1, arXiv 2203.15556, section 3.1).

Hoffmann et al. take the lowest of all training curves at every C. A training curve of a rate that has not come down yet
promises too little, so here a size's curve runs through its *finished* runs, straight in log C and log L: with one
cool-down branch for each budget they are what a training curve would be if every point of it were cooled down (Hagele
et al. 2024). Where each budget has sizes of its own there are no such curves, and the approach does not apply.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.laws.approaches.parabolas import MOST_BIAS, PowerLaw, around
from vdit.scaling.laws.approaches.parametric import Fit, fit_law
from vdit.scaling.laws.law import LEVEL, Interval

SAME_SIZE = 0.03  # sizes whose N differs by less, in logs, are one size (seeds, or digitised figures)
POINTS = 400  # amounts of compute at which the envelope is looked at
LEAST = 3  # sizes that must have a curve there, and that must win somewhere
STRIDE = 5.0  # a straight line between runs of one size whose C differs by more than this factor is no curve
ON_CURVES = 0.5  # share of the runs that must be on curves


@dataclasses.dataclass(frozen=True)
class Envelope:
    """Approach 1.

    Attributes:
      flops_P, params_P, tokens_P, loss_P: the envelope, where its best size is not the smallest or largest tried.
      params, tokens, loss: power laws of N_opt, D_opt and L_opt in C; None where the approach does not apply.
      edges: share of the amounts of compute that were looked at, but whose best size is an edge of those tried there.
      without: why there is no power law, or no interval of it; "" where there is one.
    """

    flops_P: np.ndarray
    params_P: np.ndarray
    tokens_P: np.ndarray
    loss_P: np.ndarray
    params: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    edges: float
    without: str = ""


@dataclasses.dataclass(frozen=True)
class _Curves:
    """Curves of S sizes over P amounts of compute, for any losses of the same runs.

    Attributes:
      x_P: logs of C.
      size_S: logs of N.
      lines: of each size, indices of its runs and the matrix_PR that makes their log losses a curve; nan where none is.
      tokens_SP: logs of D.
    """

    x_P: np.ndarray
    size_S: np.ndarray
    lines: tuple[tuple[np.ndarray, np.ndarray], ...]
    tokens_SP: np.ndarray

    def losses(self, log_loss_RK: np.ndarray) -> np.ndarray:
        """Curves of K draws of the log losses, (S, P, K)."""
        return np.stack([matrix @ log_loss_RK[rows] for rows, matrix in self.lines])

    @property
    def runs(self) -> int:
        """How many runs are on curves."""
        return sum(len(rows) for rows, _ in self.lines)


def group_sizes(params: np.ndarray) -> list[np.ndarray]:
    """Indices of the runs of each model size, from small to large."""
    order = np.argsort(params, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(np.asarray(params, np.float64)[order])) > SAME_SIZE) + 1
    return np.split(order, cuts)


def _curves(flops: np.ndarray, params: np.ndarray, tokens: np.ndarray) -> _Curves:
    x_P = np.linspace(np.log(flops.min()), np.log(flops.max()), POINTS)
    sizes, lines, all_tokens = [], [], []
    for rows in group_sizes(params):
        x, place = np.unique(np.round(np.log(flops[rows]), 6), return_inverse=True)
        if len(x) < 2:
            continue
        means_XR = np.eye(len(x))[place].T / np.bincount(place)[:, None]
        steps = np.stack([np.interp(x_P, x, unit, left=np.nan, right=np.nan) for unit in np.eye(len(x))], 1)
        after = np.clip(np.searchsorted(x, x_P), 1, len(x) - 1)
        steps[x[after] - x[after - 1] > np.log(STRIDE)] = np.nan
        sizes.append(np.log(params[rows]).mean())
        lines.append((rows, steps @ means_XR))
        all_tokens.append(lines[-1][1] @ np.log(tokens[rows]))
    return _Curves(x_P, np.array(sizes), tuple(lines), np.array(all_tokens).reshape(-1, POINTS))


def _winners(loss_SPK: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The best size (P, K), whether it is inside those tried there, and whether one was sought."""
    there_SPK = np.isfinite(loss_SPK)
    sought_PK = there_SPK.sum(0) >= LEAST
    best_PK = np.where(there_SPK, loss_SPK, np.inf).argmin(0)
    first_PK = there_SPK.argmax(0)
    last_PK = len(loss_SPK) - 1 - there_SPK[::-1].argmax(0)
    return best_PK, sought_PK & (best_PK > first_PK) & (best_PK < last_PK), sought_PK


def _slopes(curves: _Curves, loss_SPK: np.ndarray) -> np.ndarray:
    """Exponents of N, D and loss in C of K draws, (K, 3); nan where too few sizes win."""
    best_PK, inside_PK, _ = _winners(loss_SPK)
    wins = [len(np.unique(best[inside])) for best, inside in zip(best_PK.T, inside_PK.T, strict=True)]
    places = np.arange(len(curves.x_P))[:, None]
    ys = (
        curves.size_S[best_PK],
        curves.tokens_SP[best_PK, places],
        np.take_along_axis(loss_SPK, best_PK[None], 0)[0],
    )
    weights_PK = inside_PK / np.maximum(inside_PK.sum(0), 1)
    x_PK = curves.x_P[:, None] - (weights_PK * curves.x_P[:, None]).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = [(weights_PK * x_PK * np.where(inside_PK, y, 0)).sum(0) / (weights_PK * x_PK**2).sum(0) for y in ys]
    return np.where(np.array(wins)[:, None] >= LEAST, np.stack(found, -1), np.nan)


def fit_envelope(
    flops: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    *,
    bootstraps: int = 500,
    seed: int = 0,
    fit: Fit | None = None,
) -> Envelope:
    """Finds the best size at every amount of compute, and power laws through them.

    The steps from one size to the next make the exponent coarse in a way that no resampling of the runs shows. So
    intervals are of the same steps on losses drawn from the fitted law with the runs' scatter, and corrected for what
    the steps put those off by; there is none where that is more than `MOST_BIAS`.

    Args:
      flops, params, tokens, loss: of each run.
      bootstraps: draws.
      seed: of the draws.
      fit: the law that losses are drawn from; None fits one.
    """
    flops, params, tokens, loss = (np.asarray(values, np.float64) for values in (flops, params, tokens, loss))
    curves = _curves(flops, params, tokens)
    nothing = np.zeros(0)
    if curves.runs < ON_CURVES * len(flops) or len(curves.lines) < LEAST:
        without = f"{curves.runs} of {len(flops)} runs are of a size that was run at several amounts of compute"
        return Envelope(nothing, nothing, nothing, nothing, None, None, None, 1.0, without)
    loss_SP1 = curves.losses(np.log(loss)[:, None])
    best_P, inside_P, sought_P = (found[:, 0] for found in _winners(loss_SP1))
    edges = 1 - float(inside_P.sum() / sought_P.sum()) if sought_P.any() else 1.0
    points = np.flatnonzero(inside_P)
    best = best_P[points]
    c, n, d, least = (
        np.exp(values)
        for values in (
            curves.x_P[points],
            curves.size_S[best],
            curves.tokens_SP[best, points],
            loss_SP1[best, points, 0],
        )
    )
    exponents = _slopes(curves, loss_SP1)[0]
    if np.isnan(exponents).any():
        without = f"fewer than {LEAST} sizes are ever best inside those tried"
        return Envelope(c, n, d, least, None, None, None, edges, without)
    intervals: list[Interval | None] = [None] * 3
    wide: list[Interval | None] = [None] * 3
    biases: list[float | None] = [None] * 3
    without = ""
    if bootstraps:
        intervals, wide, biases, without = _intervals(
            curves, flops, params, tokens, loss, exponents, bootstraps, seed, fit
        )
    laws = [
        PowerLaw(float(np.exp(np.log(y).mean() - g * np.log(c).mean())), float(g), span, bias, span_95)
        for y, g, span, bias, span_95 in zip((n, d, least), exponents, intervals, biases, wide, strict=True)
    ]
    return Envelope(c, n, d, least, laws[0], laws[1], laws[2], edges, without)


def _intervals(
    curves: _Curves,
    flops: np.ndarray,
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    exponents: np.ndarray,
    bootstraps: int,
    seed: int,
    fit: Fit | None,
) -> tuple[list[Interval | None], list[Interval | None], list[float | None], str]:
    """Intervals of 80% and 95% and biases of the three exponents, or why there are none of 80%."""
    nothing: list[Any] = [None] * 3
    try:
        fit = fit or fit_law(params, tokens, loss, flops=flops, bootstraps=0, starts=10)
    except UserError as error:
        return nothing, nothing, nothing, f"no law to draw losses from ({error})"
    log_loss_R = np.log(fit.law.loss(params, tokens))
    rng = np.random.default_rng(seed)
    noise_RK = rng.normal(0, fit.scatter, (len(loss), bootstraps))
    part = max(int(2e7 // (len(curves.lines) * POINTS)), 1)  # draws at a time
    drawn_K3 = np.concatenate(
        [
            _slopes(curves, curves.losses(log_loss_R[:, None] + noise_RK[:, first : first + part]))
            for first in range(0, bootstraps, part)
        ]
    )
    if np.isnan(drawn_K3).any(-1).mean() > 0.1:
        return nothing, nothing, nothing, "with other noise too few sizes are best"
    a, gain = float(fit.law.exponent(fit.cost)), float(_loss_exponent(fit, np.exp(curves.x_P)))
    missed_K3 = drawn_K3[np.isfinite(drawn_K3).all(-1)] - [a, 1 - fit.cost.exponent * a, gain]
    biases: list[float | None] = np.median(missed_K3, 0).tolist()
    spans, wide = (
        [around(value, missed_K, level) for value, missed_K in zip(exponents, missed_K3.T, strict=True)]
        for level in (LEVEL, 0.95)
    )
    if np.abs(np.median(missed_K3[:, :2], 0)).max() > MOST_BIAS:
        return (
            nothing,
            wide,
            biases,
            f"the steps between sizes put it off by {biases[0]:+.3f}, were the fitted law true",
        )
    return spans, wide, biases, ""


def _loss_exponent(fit: Fit, flops: np.ndarray) -> float:
    """Slope of the law's lowest loss against C, in logs: no constant, as the loss falls towards E."""
    return float(np.polyfit(np.log(flops), np.log(fit.law.optimal_loss(flops, fit.cost)), 1)[0])
