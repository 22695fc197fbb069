"""Schedules: which times a sampler goes through, before the shift for the size of the clip."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from vdit.diffusion import flow
from vdit.errors import UserError
from vdit.patches import Grid

COSINE_OFFSET = 0.008
LINEAR_NOISE = 0.025
"""Share of the noise that the first half of the linear-quadratic schedule takes away."""


def linear(steps: int) -> np.ndarray:
    """Even steps."""
    return np.linspace(1, 0, steps + 1)


def cosine(steps: int) -> np.ndarray:
    """The flow times with the signal-to-noise ratios of the cosine schedule (Nichol & Dhariwal 2021, equation 17)."""
    angle = (np.linspace(1, 0, steps + 1) + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2
    signal = np.cos(angle) / np.cos(angle[-1])
    noise = np.sqrt(np.maximum(1 - signal**2, 0))
    times = noise / (noise + signal)
    times[0], times[-1] = 1.0, 0.0
    return times


def linear_quadratic(steps: int) -> np.ndarray:
    """Small even steps for the first half, then steps that grow (Movie Gen, Polyak et al. 2024, section 3.4.2).

    The second half is the parabola that continues with the first half's slope and reaches 0 with the last step.
    """
    straight = steps // 2
    if not straight:
        return linear(steps)
    slope, rest = LINEAR_NOISE / straight, steps - straight
    i = np.arange(steps + 1)
    past = np.maximum(i - straight, 0)
    curve = (1 - LINEAR_NOISE - slope * rest) / rest**2
    return 1 - (slope * i + curve * past**2)


SCHEDULES: dict[str, Callable[[int], np.ndarray]] = {
    "linear": linear,
    "cosine": cosine,
    "linear_quadratic": linear_quadratic,
}


def schedule(name: str, steps: int, grid: Grid, size_shift: bool, start: float = 1.0, shift: float = 1.0) -> np.ndarray:
    """Times of a clip, float64 times_S with S = steps + 1, falling from 1 (or `start`) to 0.

    Args:
      name: one of `SCHEDULES`.
      steps: how many.
      grid: the clip's patches.
      size_shift: whether times are shifted towards noise for larger clips, as in training.
      start: time to start from, before the shift.
      shift: constant shift, as in training.

    Raises:
      UserError: if there is no schedule of that name.
    """
    if name not in SCHEDULES:
        raise UserError(f"--schedule={name} is not one of {', '.join(SCHEDULES)}")
    times_S = start * SCHEDULES[name](steps)
    return flow.shift_as_configured(times_S, np.array(grid), size_shift, shift)
