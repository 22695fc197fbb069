"""The envelope of loss against compute over model sizes (Chinchilla's approach 1, arXiv 2203.15556, section 3.1).

Hoffmann et al. take the lowest of all training curves at every C. A training curve of a rate that has not come down yet
promises too little, so here a size's curve runs through its *finished* runs, straight in log C and log L: with one
cool-down branch for each budget they are what a training curve would be if every point of it were cooled down (Hagele
et al. 2024).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from vdit.scaling.laws.laws import central
from vdit.scaling.laws.parabolas import PowerLaw, power_law

SAME_SIZE = 0.03  # sizes whose N differs by less, in logs, are one size (seeds, or digitised figures)
POINTS = 400  # amounts of compute at which the envelope is looked at
LEAST = 3  # sizes that must have a curve there


@dataclasses.dataclass(frozen=True)
class Envelope:
    """Approach 1.

    Attributes:
      flops_P, params_P, tokens_P, loss_P: the envelope, where its best size is not the smallest or largest tried.
      params, tokens, loss: power laws of N_opt, D_opt and L_opt in C; None where fewer than two sizes win.
      edges: share of the amounts of compute that were looked at, but whose best size is an edge of those tried there.
    """

    flops_P: np.ndarray
    params_P: np.ndarray
    tokens_P: np.ndarray
    loss_P: np.ndarray
    params: PowerLaw | None
    tokens: PowerLaw | None
    loss: PowerLaw | None
    edges: float


@dataclasses.dataclass(frozen=True)
class _Curves:
    """Logs of N of S sizes; of loss and tokens at P amounts of compute, nan outside a size's runs."""

    x_P: np.ndarray
    size_S: np.ndarray
    loss_SP: np.ndarray
    tokens_SP: np.ndarray


def group_sizes(params: np.ndarray) -> list[np.ndarray]:
    """Indices of the runs of each model size, from small to large."""
    order = np.argsort(params, kind="stable")
    cuts = np.flatnonzero(np.diff(np.log(np.asarray(params, np.float64)[order])) > SAME_SIZE) + 1
    return np.split(order, cuts)


def _curves(flops: np.ndarray, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> _Curves:
    x_P = np.linspace(np.log(flops.min()), np.log(flops.max()), POINTS)
    sizes: list[float] = []
    losses: list[np.ndarray] = []
    all_tokens: list[np.ndarray] = []
    for rows in group_sizes(params):
        x, place = np.unique(np.round(np.log(flops[rows]), 6), return_inverse=True)
        if len(x) < 2:
            continue
        means = [np.bincount(place, np.log(y[rows])) / np.bincount(place) for y in (loss, tokens)]
        sizes.append(np.log(params[rows]).mean())
        for found, mean in zip((losses, all_tokens), means, strict=True):
            found.append(np.interp(x_P, x, mean, left=np.nan, right=np.nan))
    if not sizes:
        return _Curves(x_P, np.zeros(0), np.zeros((0, POINTS)), np.zeros((0, POINTS)))
    return _Curves(x_P, np.array(sizes), np.array(losses), np.array(all_tokens))


def _winners(curves: _Curves, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Points of compute with a best size inside those tried, that size at each, and at how many points one was sought.

    Only the sizes in the boolean array `sizes` count.
    """
    if not sizes.any():
        return np.zeros(0, int), np.zeros(0, int), 0
    loss_SP = np.where(sizes[:, None], curves.loss_SP, np.nan)
    there_SP = np.isfinite(loss_SP)
    points = np.flatnonzero(there_SP.sum(0) >= LEAST)
    best = np.where(there_SP, loss_SP, np.inf)[:, points].argmin(0)
    count = len(sizes)
    first = there_SP[:, points].argmax(0)
    last = count - 1 - there_SP[::-1, points].argmax(0)
    inside = (best > first) & (best < last)
    return points[inside], best[inside], len(points)


def fit_envelope(
    flops: np.ndarray, params: np.ndarray, tokens: np.ndarray, loss: np.ndarray, *, bootstraps: int = 500, seed: int = 0
) -> Envelope:
    """Finds the best size at every amount of compute, and power laws through them.

    Intervals resample the sizes, each with all of its runs: the steps from one size to the next are what makes this
    approach coarse.

    Args:
      flops, params, tokens, loss: of each run.
      bootstraps: resamples.
      seed: of the resampling.
    """
    flops, params, tokens, loss = (np.asarray(values, np.float64) for values in (flops, params, tokens, loss))
    curves = _curves(flops, params, tokens, loss)
    count = len(curves.size_S)
    points, best, sought = _winners(curves, np.ones(count, bool))
    edges = 1 - len(points) / sought if sought else 1.0
    found = [curves.x_P[points], curves.size_S[best], curves.tokens_SP[best, points], curves.loss_SP[best, points]]
    c, n, d, least = (np.exp(values) for values in found)
    if len(np.unique(best)) < 2:
        return Envelope(c, n, d, least, None, None, None, edges)
    rng = np.random.default_rng(seed)
    exponents = []
    for _ in range(bootstraps):
        drawn = np.zeros(count, bool)
        drawn[rng.integers(count, size=count)] = True
        points, best, _ = _winners(curves, drawn)
        if len(np.unique(best)) > 1:
            ys = (curves.size_S[best], curves.tokens_SP[best, points], curves.loss_SP[best, points])
            exponents.append([np.polyfit(curves.x_P[points], y, 1)[0] for y in ys])
    spans = [central(values) for values in np.array(exponents).reshape(-1, 3).T]
    laws = [dataclasses.replace(power_law(c, y), interval=span) for y, span in zip((n, d, least), spans, strict=True)]
    return Envelope(c, n, d, least, laws[0], laws[1], laws[2], edges)
