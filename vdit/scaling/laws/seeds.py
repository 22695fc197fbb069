"""The mean over seeds and how sure it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from scipy import special

LEVEL = 0.95


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over seeds and its 95% interval by Student's t; infinite ends with one seed."""

    value: float
    low: float
    high: float
    count: int


def mean(values: Sequence[float]) -> Mean:
    """Of at least one value."""
    x = np.asarray(values, np.float64)
    centre = float(x.mean())
    if len(x) < 2:
        return Mean(centre, -math.inf, math.inf, len(x))
    reach = float(special.stdtrit(len(x) - 1, (1 + LEVEL) / 2) * x.std(ddof=1) / np.sqrt(len(x)))
    return Mean(centre, centre - reach, centre + reach, len(x))
