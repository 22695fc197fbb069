"""Samplers: from noise to data along the flow, on packed rows; every example has its own times."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vdit.config import UserError
from vdit.diffusion import flow

Velocity = Callable[[Any, Any], Any]
"""(x_BLP, time_BN) -> velocity_BLP; zero where nothing is generated."""

Step = Callable[[Velocity, Any, Any, Any, Callable[[Any], Any]], Any]


def euler(velocity: Velocity, x: Any, now: Any, after: Any, spread: Callable[[Any], Any]) -> Any:
    """One step of order 1.

    Args:
      velocity: of the flow.
      x: state at time `now`.
      now, after: times of each example.
      spread: brings a per-example number to the shape of x.
    """
    return x + spread(after - now) * velocity(x, now)


def heun(velocity: Velocity, x: Any, now: Any, after: Any, spread: Callable[[Any], Any]) -> Any:
    """One step of order 2 (Karras et al. 2022, algorithm 1): the mean of the slopes at both ends."""
    first = velocity(x, now)
    guess = x + spread(after - now) * first
    return x + spread(after - now) * 0.5 * (first + velocity(guess, after))


SAMPLERS: dict[str, Step] = {"euler": euler, "heun": heun}


def sampler_step(name: str) -> Step:
    """The step of a sampler by name.

    Raises:
      UserError: if there is none of that name.
    """
    if name not in SAMPLERS:
        raise UserError(f"--sampler={name} is not one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name]


def schedule(steps: int, grid_BN3: np.ndarray, size_shift: bool) -> np.ndarray:
    """Times from 1 to 0 of each example, times_SBN with S = steps + 1: even before the shift that training uses."""
    even_S11 = np.linspace(1, 0, steps + 1, dtype=np.float32)[:, None, None]
    if not size_shift:
        return np.broadcast_to(even_S11, (steps + 1, *grid_BN3.shape[:2]))
    return np.asarray(flow.shift_time(even_S11, jax.numpy.asarray(grid_BN3)), np.float32)


def guide(conditional: Any, unconditional: Any, scale: float | Any) -> Any:
    """Classifier-free guidance (Ho & Salimans 2022): scale 1 is the conditional velocity."""
    return unconditional + scale * (conditional - unconditional)
