"""Samplers, schedules and guidance against diffusers, given the same model outputs."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from vdit.diffusion import guidance, schedules
from vdit.diffusion.samplers import FLOW, LARGEST_TIME, VP, Process, plan

START = np.random.default_rng(0).normal(size=(3, 40)).astype(np.float32)


def estimate(x: np.ndarray, t: float) -> np.ndarray:
    """A clean estimate: some smooth function of state and time."""
    return np.tanh(x) * (1 - 0.3 * t) + 0.2 * np.sin(3 * x + 2 * t)


def ours(sampler: str, times: np.ndarray, process: Process = FLOW) -> np.ndarray:
    x = base = START.astype(np.float64)
    before = earlier = np.zeros_like(x)
    for t, weights_25 in zip(*plan(sampler, times, process), strict=True):
        now = estimate(x, t)
        x, base = np.tensordot(weights_25, np.stack([x, base, now, before, earlier]), 1)
        before, earlier = now, before
    return x


def theirs(scheduler, kind: str) -> np.ndarray:
    """Their last state; `kind` is what their model puts out."""
    x = torch.from_numpy(START)
    for i, step in enumerate(scheduler.timesteps):
        index = scheduler.step_index or i
        sigma = float(scheduler.sigmas[index])
        time = sigma if kind == "flow" else sigma / (1 + sigma)
        clean = torch.from_numpy(estimate(x.numpy(), time).astype(np.float32))
        x = scheduler.step((x - clean) / sigma if kind == "flow" else clean, step, x).prev_sample
    return x.numpy()


def distinct(sigmas: torch.Tensor) -> np.ndarray:
    values = sigmas.numpy().astype(np.float64)
    return np.concatenate([values[:1], values[1:][np.diff(values) != 0]])


@pytest.mark.parametrize("steps", [4, 12, 30])
@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++", "unipc"])
def test_on_the_flow(sampler, steps):
    multistep = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}
    scheduler = {
        "euler": lambda: diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
        "heun": lambda: diffusers.FlowMatchHeunDiscreteScheduler(shift=3.0),
        "dpm++": lambda: diffusers.DPMSolverMultistepScheduler(**multistep),
        "unipc": lambda: diffusers.UniPCMultistepScheduler(**multistep),
    }[sampler]()
    scheduler.set_timesteps(steps)
    times = distinct(scheduler.sigmas)
    np.testing.assert_allclose(ours(sampler, times), theirs(scheduler, "flow"), atol=1e-4)


@pytest.mark.parametrize("steps", [4, 12, 30])
@pytest.mark.parametrize("betas", ["scaled_linear", "squaredcos_cap_v2"])
@pytest.mark.parametrize("sampler", ["euler", "dpm++", "unipc"])
def test_variance_preserving(sampler, betas, steps):
    kind = diffusers.UniPCMultistepScheduler if sampler == "unipc" else diffusers.DPMSolverMultistepScheduler
    order = {"solver_order": 1 if sampler == "euler" else 2}
    scheduler = kind(prediction_type="sample", beta_schedule=betas, **order)
    scheduler.set_timesteps(steps)
    sigmas = scheduler.sigmas.numpy().astype(np.float64)
    np.testing.assert_allclose(ours(sampler, sigmas / (1 + sigmas), VP), theirs(scheduler, "sample"), atol=1e-4)


def test_the_cosine_schedule_has_their_signal_to_noise_ratios():
    scheduler = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    signal2 = scheduler.alphas_cumprod.numpy().astype(np.float64)[:-1]  # the last beta is capped
    sigmas = np.sqrt((1 - signal2) / signal2)
    np.testing.assert_allclose(schedules.cosine(1000)[1:-1][::-1], sigmas / (1 + sigmas), atol=1e-5)


@pytest.mark.parametrize("steps", [2, 7, 30])
def test_the_linear_quadratic_schedule(steps):
    np.testing.assert_allclose(
        schedules.linear_quadratic(steps)[:-1], linear_quadratic_schedule(steps, 0.025), atol=1e-9
    )


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_the_linear_schedule(shift):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=schedules.linear(9)[:-1])
    even = schedules.linear(9)
    np.testing.assert_allclose(shift * even / (1 + (shift - 1) * even), scheduler.sigmas, atol=1e-6)


def test_guidance_rescaling():
    guided, conditional = np.random.default_rng(1).normal(size=(2, 3, 40)).astype(np.float32) * [[[3.0]], [[1.0]]]
    expected = rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(conditional), 0.7)
    spread = lambda x: x.std(-1, ddof=1, keepdims=True)  # noqa: E731
    np.testing.assert_allclose(guidance.rescale(guided, spread(guided), spread(conditional), 0.7), expected, rtol=1e-4)


def test_the_largest_time_is_theirs():
    scheduler = diffusers.UniPCMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction")
    scheduler.set_timesteps(5)
    assert float(scheduler.sigmas[0]) == pytest.approx(LARGEST_TIME, abs=1e-7)
