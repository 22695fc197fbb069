"""The networks of a model: one for all times, or two experts of which each has its range (Wan 2.2 A14B)."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from vdit.models.wan.wan_pipeline import ALL_TIMES


class Experts(NamedTuple):
    """Parameters by the times that they are for.

    Attributes:
      high: of the network for times from `boundary` on.
      low: of that for times below; None if the first is for all times.
      boundary: between them.
    """

    high: Any
    low: Any = None
    boundary: float = 0.0

    def needed(self, times: np.ndarray) -> tuple[Any, ...]:
        """The parameters of the networks that some times need: (high, low), or one of them. Time 0 needs none."""
        running = times[times > 0]
        if self.low is None or not (running < self.boundary).any():
            return (self.high,)
        return (self.high, self.low) if (running >= self.boundary).any() else (self.low,)


def share_times(own: tuple[float, ...], partners: tuple[float, ...]) -> bool:
    """Whether two networks of such ranges of times are for all times together, each for its part."""
    (start, middle), (again, end) = sorted([tuple(own), tuple(partners)])
    return middle == again and (start, end) == ALL_TIMES


def experts_of(own: Any, times: tuple[float, ...], partner: Any) -> Experts:
    """The networks of a run with parameters `own` for `times`, and of its partner for the other times, if any."""
    if partner is None:
        return Experts(own)
    low, high = times
    return Experts(own, partner, low) if high == 1 else Experts(partner, own, high)
