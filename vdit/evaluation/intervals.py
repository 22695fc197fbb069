"""Bootstrap intervals of means over examples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Mean(NamedTuple):
    """A weighted mean and its 95% interval."""

    mean: float
    interval: tuple[float, float]


def bootstrap_mean(sums_E: np.ndarray, weights_E: np.ndarray | None = None, draws: int = 1000, seed: int = 0) -> Mean:
    """sum(sums) / sum(weights) with the percentile interval over resampled examples (Efron 1979).

    Args:
      sums_E: one number per example.
      weights_E: its weight, 1 by default.
      draws: resamples.
      seed: of the resampling.

    Raises:
      ValueError: without examples.
    """
    sums_E = np.asarray(sums_E, np.float64)
    if not len(sums_E):
        raise ValueError("no examples to average")
    weights_E = np.ones_like(sums_E) if weights_E is None else np.asarray(weights_E, np.float64)
    pick = np.random.default_rng(seed).integers(0, len(sums_E), (draws, len(sums_E)))
    means = sums_E[pick].sum(1) / np.maximum(weights_E[pick].sum(1), 1e-30)
    low, high = np.quantile(means, (0.025, 0.975))
    return Mean(float(sums_E.sum() / max(weights_E.sum(), 1e-30)), (float(low), float(high)))
