"""When each patch of a request has which time: one plan for all its groups, or a later one for each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from vdit.config import DiffusionConfig
from vdit.diffusion import samplers
from vdit.diffusion.guidance import scales
from vdit.diffusion.samplers import IDLE
from vdit.diffusion.schedules import schedule
from vdit.generation.request import PatchedRequest, Request, Settings


class Timing(NamedTuple):
    """How a request is denoised.

    Attributes:
      level_L: which of its levels each patch follows, counted from 1; 0 is time 0: the patch is given.
      start_K: time at which each level starts.
      times_EK: time of each level at each evaluation; K counts its levels.
      weights_EK25: what to do with it, see `vdit.diffusion.samplers`.
      scale_EK: guidance.
    """

    level_L: np.ndarray
    start_K: np.ndarray
    times_EK: np.ndarray
    weights_EK25: np.ndarray
    scale_EK: np.ndarray


def timing(request: Request, patched: PatchedRequest, settings: Settings, config: DiffusionConfig) -> Timing:
    """The timing of a request."""
    grid = patched.example.grid
    start = request.strength if request.edited_TYXC is not None else 1.0
    shift = config.shift * (config.given_shift if patched.given_L.any() else 1)
    times_S = schedule(settings.schedule, settings.steps, grid, config.size_shift, start, shift)
    plan = samplers.plan(settings.sampler, times_S)
    levels = grid.t if request.stagger else 1
    per_step = len(plan.times_E) / settings.steps
    delays_K = np.round(np.arange(levels) * request.stagger * settings.steps * per_step).astype(int)
    count = len(plan.times_E) + delays_K[-1]
    times_EK = np.zeros((count, levels), np.float32)
    weights_EK25 = np.broadcast_to(IDLE.astype(np.float32), (count, levels, *IDLE.shape)).copy()
    for k, delay in enumerate(delays_K):
        during = slice(delay, delay + len(plan.times_E))
        times_EK[:delay, k] = times_S[0]  # waits as noise
        times_EK[during, k], weights_EK25[during, k] = plan.times_E, plan.weights_E25
    group_L = np.arange(len(patched.given_L)) // (grid.y * grid.x)
    level_L = np.where(patched.given_L, 0, 1 + np.minimum(group_L, levels - 1)).astype(np.int32)
    scale_EK = scales(times_EK, settings.guidance, settings.guidance_interval).astype(np.float32)
    return Timing(level_L, np.full(levels, times_S[0], np.float32), times_EK, weights_EK25, scale_EK)
