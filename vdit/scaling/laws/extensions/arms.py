"""Laws of several arms (optimisers, data, architectures) beside each other, and what an arm saves in compute.

L_k(N, D) = E + A_k / N^alpha + B_k / D^beta with one E, alpha and beta, or a law of its own for every arm. What an arm
saves is the compute-equivalent gain: how much less of it reaches the loss that the reference reaches at a budget.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special

from vdit.errors import UserError
from vdit.scaling.laws.answers import budget_for
from vdit.scaling.laws.approaches.parametric import LEAST_SQUARES, MIN_ROWS, NO_COST, Fit, Form, fit_law, resample
from vdit.scaling.laws.estimation import robust
from vdit.scaling.laws.estimation.calibrate import calibrated
from vdit.scaling.laws.estimation.redraw import redraw
from vdit.scaling.laws.estimation.surface import BOUNDS, Surface, surface
from vdit.scaling.laws.law import Cost, Law, Number, central, measure_cost

_UNLIKE = 0.01  # chance, under shared exponents, of a misfit from which on it is said that they differ


@dataclasses.dataclass(frozen=True)
class Arms:
    """Fitted laws of arms.

    Attributes:
      names: of the arms, the reference first.
      fits: one per arm; their resamples are of the same draws, so differences between arms are paired.
      shared: whether E, alpha and beta are shared.
      paired: runs that have a partner of the same N and D in every arm.
      warnings: what the runs do not bear out.
    """

    names: tuple[str, ...]
    fits: tuple[Fit, ...]
    shared: bool
    paired: int
    warnings: tuple[str, ...]

    def saved(self, arm: str, flops: float) -> dict[str, Any]:
        """Share of the reference's compute that an arm saves at a budget, and the interval over paired resamples.

        Returns:
          {"arm", "reference", "flops", "saved", "interval", "gain"}; gain is C of the reference over that of the arm
          for the same loss, and a negative share is what the arm needs more.
        """
        fit, other = self.fits[self.names.index(arm)], self.fits[0]

        def share(law: Law, reference: Law) -> Number:
            return 1 - budget_for(law, reference.optimal_loss(flops, other.cost), fit) / flops

        value = float(share(fit.law, other.law))
        return {
            "arm": arm,
            "reference": self.names[0],
            "flops": flops,
            "saved": value,
            "interval": central(share(fit.resamples, other.resamples)),
            "gain": 1 / (1 - value) if value < 1 else float("inf"),
        }


def fit_arms(
    params: np.ndarray,
    tokens: np.ndarray,
    loss: np.ndarray,
    arms: Sequence[str],
    *,
    reference: str = "",
    shared: bool = True,
    flops: np.ndarray | None = None,
    bootstraps: int = 1000,
    seed: int = 0,
) -> Arms:
    """Fits the laws of all arms together.

    Where all arms have runs of the same N and D, what the noise of partners has in common (the data's order) is drawn
    together and cancels in the difference; else each run has noise of its own.

    Args:
      params, tokens, loss: of each run.
      arms: which arm it is of.
      reference: the arm that others are compared with; "" is the one with most runs.
      shared: whether E, alpha and beta are the same for all.
      flops: counted; 6 N D without.
      bootstraps, seed: of the draws.

    Raises:
      UserError: if there is one arm only, no such reference, or an arm with too few runs.
    """
    params, tokens, loss = (np.asarray(v, np.float64) for v in (params, tokens, loss))
    arm_R = np.array([str(arm) for arm in arms])
    names = sorted(set(arm_R.tolist()), key=lambda name: (-int((arm_R == name).sum()), name))
    if len(names) < 2:
        raise UserError(
            f"all runs belong to one arm, {names[0] if names else 'none'}; give a column that tells arms apart"
        )
    if reference and reference not in names:
        raise UserError(f"no run belongs to arm {reference}; there are {', '.join(names)}")
    first = reference or names[0]
    names = [first, *(name for name in names if name != first)]
    for name in names:
        if (arm_R == name).sum() < MIN_ROWS:
            raise UserError(f"arm {name} has {(arm_R == name).sum()} runs; a law needs at least {MIN_ROWS}")
    parts = [np.flatnonzero(arm_R == name) for name in names]
    alone = [fit_law(params[p], tokens[p], loss[p], bootstraps=0) for p in parts]
    heavy = any(fit.form.estimator == "huber" for fit in alone)
    form = Form("huber" if heavy else "squares")
    if heavy:
        alone = [fit_law(params[p], tokens[p], loss[p], bootstraps=0, form=form) for p in parts]
    cost = Cost() if flops is None else measure_cost(np.asarray(flops, np.float64), params, tokens)
    warnings: tuple[str, ...] = () if cost else (NO_COST,)
    cost = cost or Cost()
    draws = _Draws(bootstraps, seed, _partners(params, tokens, parts))
    rows = surface(params, tokens, loss)
    thetas_A5, drawn_AK5 = (_together if shared else _apart)(rows, parts, alone, form, draws)
    fits = []
    for part, theta, drawn in zip(parts, thetas_A5, drawn_AK5, strict=True):
        residuals = rows.z_R[part] - rows.log_loss(theta[None])[0, part]
        fits.append(Fit(rows.law(theta), cost, rows.law(drawn), residuals, 0.0, (), form))
    warnings += _warnings(names, fits, alone) if shared else ()
    paired = 0 if draws.partners_CA is None else draws.partners_CA.size
    return Arms(tuple(names), tuple(fits), shared, paired, warnings)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """What intervals are made of.

    Attributes:
      count, seed: of the draws.
      partners_CA: runs of equal N and D in every arm; None where the arms have designs of their own.
    """

    count: int
    seed: int
    partners_CA: np.ndarray | None

    def weights(self, rows: Surface, parts: Sequence[np.ndarray]) -> np.ndarray:
        """How often each run is drawn, (K, R): partners together, others within their arm."""
        total_KR = np.zeros((self.count, len(rows.z_R)))
        if self.partners_CA is not None:
            first_C = self.partners_CA[:, 0]
            drawn_KC = resample(rows.x_R[first_C], rows.y_R[first_C], self.count, self.seed)
            total_KR[:, self.partners_CA] = drawn_KC[:, :, None]
            return total_KR
        for number, part in enumerate(parts):
            total_KR[:, part] = resample(rows.x_R[part], rows.y_R[part], self.count, self.seed + number)
        return total_KR


def _partners(params: np.ndarray, tokens: np.ndarray, parts: Sequence[np.ndarray]) -> np.ndarray | None:
    """The run of each arm at each pair of N and D, (C, A); None unless every arm has every pair once."""
    cells = [{(round(np.log(params[i]), 6), round(np.log(tokens[i]), 6)): i for i in part} for part in parts]
    common = sorted(cells[0])
    alike = all(set(own) == set(common) and len(own) == len(part) for own, part in zip(cells, parts, strict=True))
    if len(common) < MIN_ROWS or not alike:
        return None
    return np.array([[own[cell] for own in cells] for cell in common])


def _apart(
    rows: Surface, parts: Sequence[np.ndarray], alone: Sequence[Fit], form: Form, draws: _Draws
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Coefficients of each arm by its own runs, and of each draw."""
    weights_KR = draws.weights(rows, parts) if form.estimator == "huber" else None
    thetas, drawn = [], []
    for number, (part, fit) in enumerate(zip(parts, alone, strict=True)):
        own = _Draws(draws.count, draws.seed + number, None)
        theta_1, drawn_1K5 = _minimise(rows, [part], [rows.theta(fit.law)], form, own, weights_KR)
        thetas.append(theta_1[0])
        drawn.append(drawn_1K5[0])
    return thetas, drawn


def _together(
    rows: Surface, parts: Sequence[np.ndarray], alone: Sequence[Fit], form: Form, draws: _Draws
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    weights_KR = draws.weights(rows, parts) if form.estimator == "huber" else None
    return _minimise(rows, parts, [rows.theta(fit.law) for fit in alone], form, draws, weights_KR)


def _minimise(
    rows: Surface,
    parts: Sequence[np.ndarray],
    starts_A5: Sequence[np.ndarray],
    form: Form,
    draws: _Draws,
    weights_KR: np.ndarray | None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Coefficients (5,) of each arm with one E, alpha and beta, and those of each draw (K, 5)."""
    count = len(parts)
    free = 2 * count + 3
    matrices = np.zeros((count, free, 5))
    for arm in range(count):
        matrices[arm, 2 * arm, 0] = matrices[arm, 2 * arm + 1, 1] = 1
        matrices[arm, 2 * count :, 2:] = np.eye(3)
    logs = form.estimator == "huber"
    models = [Surface(rows.x_R[p], rows.y_R[p], rows.z_R[p], rows.means).model(logs) for p in parts]
    order = np.concatenate(list(parts))

    def model(free_KF: np.ndarray, lanes_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = [m(free_KF @ matrix, lanes_K) for m, matrix in zip(models, matrices, strict=True)]
        slopes = [matrix @ slope for (_, slope), matrix in zip(found, matrices, strict=True)]
        return np.concatenate([value for value, _ in found], -1), np.concatenate(slopes, -1)

    bounds = np.array([*BOUNDS[:2] * count, *BOUNDS[2:]])
    delta = form.delta if logs else LEAST_SQUARES
    starts = np.array([[v for theta in starts_A5 for v in theta[:2]] + list(theta[2:]) for theta in starts_A5])
    target, ones = rows.target(logs)[order], np.ones((1, len(order)))
    ends, values = robust.minimise(model, target, starts, ones, delta=delta, bounds_P2=bounds)
    best = ends[values.argmin()]
    if weights_KR is None:
        place = np.argsort(order)  # of each run in the order of the arms
        partners_CA = None if draws.partners_CA is None else place[draws.partners_CA]
        drawn = redraw(
            model, target, best, count=draws.count, seed=draws.seed, delta=delta, bounds_F2=bounds,
            partners_CA=partners_CA,
        )  # fmt: skip
    else:
        first = np.tile(best, (len(weights_KR), 1))
        drawn, _ = robust.minimise(model, target, first, weights_KR[:, order], delta=delta, bounds_P2=bounds)

        def weights(count: int, seed: int) -> np.ndarray:
            return dataclasses.replace(draws, count=count, seed=seed).weights(rows, parts)[:, order]

        drawn = calibrated(
            drawn, model, target, best, weights, delta=delta, bounds_F2=bounds, seed=draws.seed + len(parts)
        )  # fmt: skip
    return [best @ matrix for matrix in matrices], [drawn @ matrix for matrix in matrices]


def _warnings(names: Sequence[str], fits: Sequence[Fit], alone: Sequence[Fit]) -> tuple[str, ...]:
    """Whether laws of their own fit the arms better than chance allows (F test)."""
    shared = sum(float((fit.residuals_R**2).sum()) for fit in fits)
    own = sum(float((fit.residuals_R**2).sum()) for fit in alone)
    extra, freedom = 3 * (len(names) - 1), sum(fit.rows for fit in alone) - 5 * len(names)
    if freedom < 1 or own <= 0:
        return ()
    chance = float(special.fdtrc(extra, freedom, max(shared - own, 0) / extra / (own / freedom)))
    if chance >= _UNLIKE:
        return ()
    return (f"the arms' E, alpha and beta differ (chance {chance:.1g} if they were shared): --shared=false fits each",)
