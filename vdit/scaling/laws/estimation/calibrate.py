"""Draws of resampled runs made as wide as they should be, by a second bootstrap around the first.

With few runs a coefficient, fits to resampled runs spread farther than fits to new runs would, and intervals hold the
truth too often. How much farther does not depend on the scale of the noise, so it shows on data simulated from the
fitted law, whose truth is known (Hall 1986, "On the bootstrap and confidence intervals"; Beran 1987, "Prepivoting to
reduce level error of confidence sets").
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import special

from vdit.scaling.laws.estimation import robust
from vdit.scaling.laws.estimation.robust import Model

_ENOUGH = 20  # runs a coefficient, from which on the difference is small
_WORLDS, _DRAWS = 60, 20  # simulated data sets, and resamples of each
_TOLERANCE, _STEPS = 1e-6, 60  # of their fits, whose ranks alone count


def calibrated(
    drawn_KF: np.ndarray,
    model: Model,
    target_R: np.ndarray,
    best_F: np.ndarray,
    weights: Callable[[int, int], np.ndarray],
    *,
    delta: float,
    bounds_F2: np.ndarray,
    seed: int,
) -> np.ndarray:
    """The draws of each coefficient, closer to or farther from their median.

    Args:
      drawn_KF: coefficients fitted to resampled runs.
      model, target_R, delta, bounds_F2: as for `robust.minimise`.
      best_F: coefficients of all runs.
      weights: (count, seed) -> how often each run is drawn in `count` resamples, (K, R).
      seed: of the simulations.
    """
    rows, free = len(target_R), len(best_F)
    if not free < rows < _ENOUGH * free or not len(drawn_KF):
        return drawn_KF
    weights_KR = weights(_WORLDS * _DRAWS, seed)
    if len(weights_KR) < _WORLDS * _DRAWS:  # hardly any resample determines the coefficients
        return drawn_KF
    residual_R = target_R - model(best_F[None], np.zeros(1, int))[0][0]
    moved_WR = _noise(residual_R, free, np.random.default_rng(seed)) - residual_R

    def fitted(world_K: np.ndarray, starts_KF: np.ndarray, weights_KR: np.ndarray) -> np.ndarray:
        def simulated(theta_KF: np.ndarray, lanes_K: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found_KR, slopes_KFR = model(theta_KF, lanes_K)
            return found_KR - moved_WR[world_K[lanes_K]], slopes_KFR

        return robust.minimise(
            simulated, target_R, starts_KF, weights_KR, delta=delta, bounds_P2=bounds_F2, tolerance=_TOLERANCE,
            iterations=_STEPS,
        )[0]  # fmt: skip

    worlds = np.arange(_WORLDS)
    best_WF = fitted(worlds, np.tile(best_F, (_WORLDS, 1)), np.ones((1, rows)))
    world_K = np.repeat(worlds, _DRAWS)
    below_WF = (fitted(world_K, best_WF[world_K], weights_KR).reshape(_WORLDS, _DRAWS, free) < best_F).sum(1)
    middle_F = np.median(drawn_KF, axis=0)
    return middle_F + _stretch(below_WF) * (drawn_KF - middle_F)


def _noise(residual_R: np.ndarray, free: int, rng: np.random.Generator) -> np.ndarray:
    """Noise of the simulated runs, (W, R): of the sizes that residuals have, with random signs.

    The law goes almost through as many runs as it has coefficients, mostly ones of little noise. Their sizes are spread
    evenly below those of the others, as the spread of a median hangs on how many small ones there are.
    """
    others = np.sort(np.abs(residual_R))[free:]
    size = np.append(np.linspace(0, others[0], free + 1)[:-1], others)
    shape = _WORLDS, len(residual_R)
    drawn_WR = np.interp(rng.uniform(0, len(size) - 1, shape), np.arange(len(size)), size)
    return drawn_WR * rng.choice([-1.0, 1.0], shape)


def _stretch(below_WF: np.ndarray) -> np.ndarray:
    """Spread of the truth over that of the draws, by how many of `_DRAWS` draws lie below the truth in each world.

    Ranks as normal scores; of a truth that always lies in the middle the scores still spread by the error of a median
    of so few draws.
    """
    scores = special.ndtri((np.arange(_DRAWS + 1) + 0.5) / (_DRAWS + 1))
    least, usual = np.pi / (2 * _DRAWS), float((scores**2).mean())
    return np.sqrt(np.maximum((scores[below_WF] ** 2).mean(0) - least, 0.05) / (usual - least))
