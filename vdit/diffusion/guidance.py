"""Classifier-free guidance (Ho & Salimans 2022) on clean estimates, with an interval of times and rescaling."""

from __future__ import annotations

from typing import Any

import numpy as np


def guide(conditional: Any, unconditional: Any, scale: Any) -> Any:
    """Away from the unconditional estimate; scale 1 is the conditional one."""
    return unconditional + scale * (conditional - unconditional)


def rescale(guided: Any, deviation: Any, wanted: Any, share: Any) -> Any:
    """Undoes a share of what guidance does to the spread of an estimate (Lin et al. 2024, equations 15 and 16).

    Args:
      guided: the guided estimate.
      deviation, wanted: standard deviations of the guided and of the conditional estimate, broadcasting against it.
      share: 0 keeps the guided estimate, 1 gives it the conditional one's spread.
    """
    return share * guided * (wanted / deviation) + (1 - share) * guided


def scales(times: np.ndarray, scale: float, interval: tuple[float, float]) -> np.ndarray:
    """The scale at each time: 1 outside the interval low < time <= high (Kynkaanniemi et al. 2024)."""
    low, high = interval
    return np.where((times > low) & (times <= high), scale, 1.0)
