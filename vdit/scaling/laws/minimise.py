"""Minimises many small smooth functions at once: BFGS vectorised over problems."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Objective = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def minimise_many(
    objective: Objective, starts_KP: np.ndarray, *, tolerance: float = 1e-7, iterations: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """BFGS (for a handful of unknowns the full-memory form of L-BFGS) from K starts side by side.

    A bootstrap is thousands of fits of five unknowns; one at a time, the calls cost more than the arithmetic, and a
    threaded BLAS makes products this small slower still.

    Args:
      objective: (unknowns_KP, problems_K) -> (values_K, gradients_KP); problems_K says which of the K each row is.
      starts_KP: starting points.
      tolerance: a problem is done when no gradient component exceeds it, or when its value stops falling.
      iterations: at most this many steps.

    Returns:
      (unknowns_KP, values_K) at the minima.
    """
    x = np.array(starts_KP, np.float64)
    count, size = x.shape
    value, gradient = objective(x, np.arange(count))
    inverse = np.tile(np.eye(size), (count, 1, 1))  # of the Hessian
    scaled = np.zeros(count, bool)
    stalls = np.zeros(count, int)
    active = np.flatnonzero(np.abs(gradient).max(-1) > tolerance)
    for _ in range(iterations):
        if not active.size:
            break
        direction = -np.einsum("kpq,kq->kp", inverse[active], gradient[active])
        slope = np.einsum("kp,kp->k", direction, gradient[active])
        uphill = slope >= 0  # rounding has spoilt the matrix: steepest descent from here
        inverse[active[uphill]] = np.eye(size)
        direction[uphill] = -gradient[active[uphill]]
        slope[uphill] = -np.einsum("kp,kp->k", gradient[active[uphill]], gradient[active[uphill]])

        step, new_value, new_gradient = _line_search(objective, x[active], value[active], direction, slope, active)
        moved = step[:, None] * direction
        change = new_gradient - gradient[active]
        _update(inverse, scaled, active, moved, change)
        small = value[active] - new_value <= 1e-12 * np.maximum(np.abs(value[active]), 1e-12)
        stalls[active] = np.where(small, stalls[active] + 1, 0)
        x[active] += moved
        value[active], gradient[active] = new_value, new_gradient
        active = active[(np.abs(new_gradient).max(-1) > tolerance) & (stalls[active] < 3) & (step > 0)]
    return x, value


def _line_search(
    objective: Objective, x: np.ndarray, value: np.ndarray, direction: np.ndarray, slope: np.ndarray, which: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Steps that meet the weak Wolfe conditions, by bisection (Lewis & Overton 2013); 0 where none is found."""
    count = len(x)
    low, high, step = np.zeros(count), np.full(count, np.inf), np.ones(count)
    best = np.zeros(count)
    best_value, best_gradient = value.copy(), np.zeros_like(x)
    lanes = np.arange(count)
    for _ in range(40):
        found, found_gradient = objective(x[lanes] + step[lanes, None] * direction[lanes], which[lanes])
        enough = found <= value[lanes] + 1e-4 * step[lanes] * slope[lanes]
        flat = np.einsum("kp,kp->k", found_gradient, direction[lanes]) >= 0.9 * slope[lanes]
        keep = enough & (found <= best_value[lanes])
        best[lanes[keep]], best_value[lanes[keep]] = step[lanes[keep]], found[keep]
        best_gradient[lanes[keep]] = found_gradient[keep]
        high[lanes[~enough]] = step[lanes[~enough]]
        low[lanes[enough]] = step[lanes[enough]]
        lanes = lanes[~(enough & flat)]
        if not lanes.size:
            break
        step[lanes] = np.where(np.isfinite(high[lanes]), (low[lanes] + high[lanes]) / 2, 2 * low[lanes])
    return best, best_value, best_gradient


def _update(inverse: np.ndarray, scaled: np.ndarray, active: np.ndarray, moved: np.ndarray, change: np.ndarray) -> None:
    """BFGS update of the inverse Hessians, in place, where the curvature along the step is positive."""
    curvature = np.einsum("kp,kp->k", moved, change)
    sizes = np.sqrt(np.einsum("kp,kp->k", moved, moved) * np.einsum("kp,kp->k", change, change))
    good = curvature > 1e-10 * sizes
    lanes, s, y, rho = active[good], moved[good], change[good], 1 / curvature[good]
    first = ~scaled[lanes]  # the first matrix gets the scale of the problem
    inverse[lanes[first]] *= (curvature[good] / np.einsum("kp,kp->k", y, y))[first, None, None]
    scaled[lanes] = True
    left = np.eye(s.shape[1]) - rho[:, None, None] * s[:, :, None] * y[:, None, :]
    product = np.einsum("kpq,kqr,ksr->kps", left, inverse[lanes], left, optimize=False)
    inverse[lanes] = product + rho[:, None, None] * s[:, :, None] * s[:, None, :]
