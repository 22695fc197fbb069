"""Robust nonlinear least squares, many small problems side by side: Levenberg-Marquardt on a summed Huber loss."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# (theta_KP, lanes_K) -> predictions_KR and their derivatives_KPR; lanes_K says which of the K problems each row is.
Model = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

_PART = 250  # problems at a time, so that their arrays stay in cache
_EASIER, _HARDER = 0.2, 5.0  # factors of the damping after a step that helped, and after one that did not
_LEAST, _MOST = 1e-6, 1e8  # damping


def huber(residual: np.ndarray, delta: float) -> np.ndarray:
    """Huber's loss over delta: quadratic within delta of 0, linear outside."""
    size = np.abs(residual)
    return np.where(size < delta, residual**2 / (2 * delta), size - delta / 2)


def minimise(
    model: Model,
    target_R: np.ndarray,
    starts_KP: np.ndarray,
    weights_KR: np.ndarray,
    *,
    delta: float,
    bounds_P2: np.ndarray,
    tolerance: float = 1e-9,
    iterations: int = 200,
) -> tuple[np.ndarray, np.ndarray]:
    """Minimises sum over R of weight x Huber(model - target) / delta for each of K problems.

    A bootstrap is thousands of fits of a few unknowns; one at a time, the calls would cost more than the arithmetic.
    With a delta far below the noise the loss is nearly the sum of absolute residuals, whose curvature is that of the
    few runs within delta. Added to it, in place of Marquardt's diagonal, is a share of the curvature of reweighted
    least squares, which no run is missing from and with which a full step never overshoots a linear model.

    Args:
      model: what is fitted.
      target_R: what it is fitted to.
      starts_KP: where each problem starts.
      weights_KR: of the runs in each problem; one row of them serves all.
      delta: of Huber's loss; far above the residuals it makes least squares.
      bounds_P2: of the coefficients. One that a step would take out of them stops there, and the others take the step
        that is best for them then: a term that vanishes does not hold up the rest.
      tolerance: a problem is done when a step promises or brings less than this share of its loss.
      iterations: at most so many steps.

    Returns:
      (theta_KP, loss_K) at the minima.
    """
    count = len(starts_KP)
    theta_KP, value_K = np.clip(np.asarray(starts_KP, np.float64), *bounds_P2.T), np.empty(count)
    weights_KR = np.broadcast_to(weights_KR, (count, len(target_R)))
    for first in range(0, count, _PART):
        lanes = np.arange(first, min(first + _PART, count))
        weights = weights_KR[lanes]

        def problem(theta: np.ndarray, which: np.ndarray, weights: np.ndarray = weights, first: int = first) -> tuple:
            return _expand(model, target_R, theta, first + which, weights[which], delta)

        theta_KP[lanes], value_K[lanes] = _descend(problem, theta_KP[lanes], bounds_P2, tolerance, iterations)
    return theta_KP, value_K


def _expand(
    model: Model,
    target_R: np.ndarray,
    theta_KP: np.ndarray,
    lanes_K: np.ndarray,
    weights_KR: np.ndarray,
    delta: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Loss_K, gradient_KP, and the curvatures_KPP of the loss itself and of reweighted least squares."""
    with np.errstate(all="ignore"):
        predicted_KR, slopes_KPR = model(theta_KP, lanes_K)
        residual_KR = predicted_KR - target_R
        size_KR = np.abs(residual_KR)
        pull_KR = weights_KR / np.maximum(size_KR, delta)
        value_K = (weights_KR * huber(residual_KR, delta)).sum(-1)
        gradient_KP = (slopes_KPR @ (pull_KR * residual_KR)[..., None])[..., 0]
        across_KRP = slopes_KPR.transpose(0, 2, 1)
        soft_KPP = (slopes_KPR * pull_KR[:, None]) @ across_KRP
        hard_KPP = (slopes_KPR * np.where(size_KR < delta, pull_KR, 0)[:, None]) @ across_KRP
    return np.where(np.isfinite(value_K), value_K, np.inf), gradient_KP, hard_KPP, soft_KPP


def _descend(
    problem: Callable[..., tuple], theta_KP: np.ndarray, bounds_P2: np.ndarray, tolerance: float, iterations: int
) -> tuple[np.ndarray, np.ndarray]:
    """Levenberg-Marquardt from each start, each problem with its own damping."""
    count, size = theta_KP.shape
    value, gradient, hard, soft = problem(theta_KP, np.arange(count))
    damping = np.ones(count)
    active = np.flatnonzero(np.isfinite(value))
    for _ in range(iterations):
        if not active.size:
            break
        curvature = hard[active] + damping[active, None, None] * soft[active]
        trace = np.trace(curvature, axis1=1, axis2=2)
        curvature += (1e-12 * trace + 1e-300)[:, None, None] * np.eye(size)
        step = _step(curvature, gradient[active], theta_KP[active], bounds_P2)
        bent = (curvature @ step[..., None])[..., 0]
        promised = -np.einsum("kp,kp->k", step, gradient[active] + bent / 2)
        tried = problem(theta_KP[active] + step, active)
        gained = value[active] - tried[0]
        better = gained > 0
        moved = active[better]
        theta_KP[moved] += step[better]
        for kept, new in zip((value, gradient, hard, soft), tried, strict=True):
            kept[moved] = new[better]
        small = tolerance * np.maximum(np.abs(value[active]), 1e-12)
        settled = np.where(better, np.maximum(gained, promised) <= small, (promised >= 0) & (promised <= small))
        damping[active] = np.clip(damping[active] * np.where(better, _EASIER, _HARDER), _LEAST, _MOST)
        active = active[~settled & (damping[active] < _MOST)]
    return theta_KP, value


def _step(
    curvature_KPP: np.ndarray, gradient_KP: np.ndarray, theta_KP: np.ndarray, bounds_P2: np.ndarray
) -> np.ndarray:
    """The Newton step; coefficients that it would take out of their bounds go only so far, and the others adapt."""
    low_KP, high_KP = bounds_P2[:, 0] - theta_KP, bounds_P2[:, 1] - theta_KP
    step_KP, stopped_KP = np.zeros_like(theta_KP), np.zeros(theta_KP.shape, bool)
    lanes, unit_PP = np.arange(len(theta_KP)), np.eye(theta_KP.shape[1])
    while lanes.size:
        stopped, curvature = stopped_KP[lanes], curvature_KPP[lanes]
        moved = np.where(stopped, step_KP[lanes], 0)
        inner = np.where(stopped[:, :, None] | stopped[:, None, :], unit_PP, curvature)
        pull = gradient_KP[lanes] + (curvature @ moved[..., None])[..., 0]
        step = np.linalg.solve(inner, np.where(stopped, moved, -pull)[..., None])[..., 0]
        step_KP[lanes] = np.clip(step, low_KP[lanes], high_KP[lanes])
        beyond = (step_KP[lanes] != step) & ~stopped
        stopped_KP[lanes] |= beyond
        lanes = lanes[beyond.any(-1)]
    return step_KP
