"""Least-squares fits to losses drawn anew around a fitted law with normal noise: what its intervals are made of.

Resampled runs leave out, in many draws, the few that carry a coefficient, such as the shortest runs of a rectangle of
sizes and lengths, and their intervals hold the truth too seldom. Where residuals look normal, noise need not be
resampled: it is known but for its scale, which residuals show with R - p degrees of freedom.
"""

from __future__ import annotations

import numpy as np
from scipy import special

from vdit.scaling.laws.estimation import robust
from vdit.scaling.laws.estimation.robust import Model

_CLEARLY = 2.0  # log of how much likelier residuals must be of noise that is the same at every loss
_BY_CHANCE = 0.05  # chance of a likeness of partners' residuals from which on it is not drawn


def redraw(
    model: Model,
    target_R: np.ndarray,
    best_F: np.ndarray,
    *,
    count: int,
    seed: int,
    delta: float,
    bounds_F2: np.ndarray,
    partners_CA: np.ndarray | None = None,
) -> np.ndarray:
    """Coefficients (K, F) fitted to `count` draws of the losses around those of `best_F`; (0, F) without residuals.

    The scale of the noise is itself drawn, so that the draws spread as Student's t has it. The noise is in proportion
    to the loss, unless residuals are clearly likelier with the same noise at every loss.

    Args:
      model, target_R, delta, bounds_F2: as for `robust.minimise`.
      best_F: coefficients of least squares.
      count: K.
      seed: of the draws.
      partners_CA: runs of the same N and D in each of A arms, whose noise may have a part in common.
    """
    freedom = len(target_R) - len(best_F)
    if freedom < 1 or not count:
        return np.zeros((0, len(best_F)))
    rng = np.random.default_rng(seed)
    predicted_R = model(best_F[None], np.zeros(1, int))[0][0]
    per_R = _proportion(target_R - predicted_R, predicted_R)
    residual_R = (target_R - predicted_R) / per_R
    unit_KR = rng.normal(size=(count, len(target_R)))
    if partners_CA is not None:
        share = _in_common(residual_R[partners_CA])
        common_KC1 = rng.normal(size=(count, len(partners_CA), 1))
        unit_KR[:, partners_CA] = np.sqrt(1 - share) * unit_KR[:, partners_CA] + np.sqrt(share) * common_KC1
    noise_KR = np.sqrt((residual_R**2).sum() / rng.chisquare(freedom, (count, 1))) * per_R * unit_KR

    def redrawn(theta_KF: np.ndarray, lanes_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found_KR, slopes_KFR = model(theta_KF, lanes_K)
        return found_KR - noise_KR[lanes_K], slopes_KFR

    starts_KF, everything = np.tile(best_F, (count, 1)), np.ones((1, len(target_R)))
    return robust.minimise(redrawn, predicted_R, starts_KF, everything, delta=delta, bounds_P2=bounds_F2)[0]


def _proportion(residual_R: np.ndarray, predicted_R: np.ndarray) -> np.ndarray:
    """What the noise is in proportion to: the loss, or nothing (1)."""
    constant_R = np.ones_like(predicted_R)
    with np.errstate(divide="ignore", invalid="ignore"):
        unlikely = [
            np.log(((residual_R / per_R) ** 2).mean()) / 2 + np.log(per_R).mean() for per_R in (predicted_R, constant_R)
        ]
        clearly = len(residual_R) * (unlikely[0] - unlikely[1]) > _CLEARLY
    return constant_R if clearly else predicted_R


def _in_common(residual_CA: np.ndarray) -> float:
    """Share of the variance that partners have in common (intraclass correlation); 0 where chance explains it."""
    cells, arms = residual_CA.shape
    mean_C1 = residual_CA.mean(1, keepdims=True)
    between = arms * float(mean_C1.var(ddof=1))
    within = float(((residual_CA - mean_C1) ** 2).sum()) / (cells * (arms - 1))
    ratio = between / max(within, 1e-300)
    if special.fdtrc(cells - 1, cells * (arms - 1), ratio) > _BY_CHANCE:
        return 0.0
    return float((between - within) / (between + (arms - 1) * within))
