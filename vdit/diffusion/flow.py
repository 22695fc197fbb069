"""Rectified flow (Liu et al. 2022): straight paths from data to noise.

x_t = (1 - t) x_0 + t e with e ~ N(0, 1); the velocity is dx/dt = e - x_0; t = 0 is clean.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from vdit.patches import Array


def corrupt(clean: Array, noise: Array, time: Array) -> Array:
    """x_t; `time` broadcasts against the data."""
    return (1 - time) * clean + time * noise


def velocity_target(clean: Array, noise: Array) -> Array:
    """dx/dt = e - x_0, the same at every time."""
    return noise - clean


def velocity(prediction: Array, noised: Array, time: Array, kind: str, least_time: float) -> Array:
    """The velocity that a network's output stands for.

    Args:
      prediction: the output, a clean patch for kind "x" (Li & He 2025, equation 5) or the velocity for "v".
      noised: x_t.
      time: broadcasts against the data.
      kind: "x" or "v".
      least_time: smallest divisor, so that the weight of the smallest times stays bounded.
    """
    if kind == "v":
        return prediction
    return (noised - prediction) / jnp.maximum(time, least_time)


def scaled_input(noised: Array, time: Array, std: float) -> Array:
    """x_t at unit variance, as the network takes it: times 1 / sqrt((1 - t)^2 std^2 + t^2), Karras et al. 2022's c_in.

    Args:
      noised: x_t.
      time: broadcasts against the data; given tokens have 0, and so the variance of the data.
      std: standard deviation of the data, `DiffusionConfig.input_std`; 0 scales nothing.
    """
    return noised * jax.lax.rsqrt((1 - time) ** 2 * std**2 + time**2) if std else noised


def shift_time(time: Array, grid: Array) -> Array:
    """Moves times towards noise for large clips (Open-Sora 2.0).

    t' = a t / (1 + (a - 1) t), a = (1 + 2 (n - 256) / (4096 - 256)) sqrt(groups) for n spatial tokens, at least 0.5.

    Args:
      time: in [0, 1].
      grid: (..., 3) patch grids, broadcasting against `time` without its last axis.
    """
    return scale_time(time, size_factor(grid, isinstance(time, np.ndarray)))


def size_factor(grid: Array, in_numpy: bool = False) -> Array:
    """The factor a of `shift_time` for clips of such patch grids (..., 3)."""
    xp = np if in_numpy and isinstance(grid, np.ndarray) else jnp  # NumPy compiles nothing
    spatial = (grid[..., 1] * grid[..., 2]).astype(xp.float32)
    groups = xp.maximum(grid[..., 0], 1).astype(xp.float32)
    return xp.maximum(1 + 2 * (spatial - 256) / (4096 - 256), 0.5) * xp.sqrt(groups)


def scale_time(time: Array, alpha: Array | float) -> Array:
    """A t / (1 + (a - 1) t): the time at which noise over signal is `alpha` times that at t; 1 changes nothing."""
    return alpha * time / (1 + (alpha - 1) * time)


def shift_as_configured(time: Array, grid: Array, size_shift: bool, shift: float) -> Array:
    """Times shifted for the size of clips, and by a constant; see `config.DiffusionConfig`."""
    time = shift_time(time, grid) if size_shift else time
    return time if shift == 1 else scale_time(time, shift)


def logit_normal(normal: Array, mean: float, std: float) -> Array:
    """Times in (0, 1) from standard normal numbers (Esser et al. 2024)."""
    return jax.nn.sigmoid(mean + std * normal)
