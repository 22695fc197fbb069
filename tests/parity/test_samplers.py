"""Samplers against the schedulers of diffusers, given the same model outputs."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from vdit.diffusion.samplers import sampler_step

START = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)


def velocity(x, t):
    """Some smooth function of state and time."""
    return np.sin(3 * x + 2 * t) + 0.5 * x * t


def theirs(scheduler) -> tuple[np.ndarray, np.ndarray]:
    """Their last state, and the times they went through."""
    x = torch.from_numpy(START)
    for t in scheduler.timesteps:
        x = scheduler.step(torch.from_numpy(velocity(x.numpy(), np.float32(t) / 1000)), t, x).prev_sample
    sigmas = scheduler.sigmas.numpy()
    return x.numpy(), np.concatenate([sigmas[:1], sigmas[1:][np.diff(sigmas) != 0]])


@pytest.mark.parametrize(
    ("name", "kind"), [("euler", FlowMatchEulerDiscreteScheduler), ("heun", FlowMatchHeunDiscreteScheduler)]
)
def test_flow_samplers(name, kind):
    scheduler = kind(shift=3.0)
    scheduler.set_timesteps(12)
    expected, times = theirs(scheduler)
    x = START
    for i, (now, after) in enumerate(zip(times[:-1], times[1:], strict=True)):
        step = sampler_step("euler" if i == len(times) - 2 else name)
        x = step(velocity, x, now, after, lambda value: value)
    np.testing.assert_allclose(x, expected, atol=1e-4)
