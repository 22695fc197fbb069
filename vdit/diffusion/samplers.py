"""Samplers as tables of numbers: from noise to data in a fixed number of evaluations of the network.

Every sampler here is linear: the next state is a weighted sum of states and clean estimates it has seen, with weights
that follow from the times alone. So a `Plan` of weights, computed in float64 before anything runs, is all in which
samplers differ, and one compiled program (`vdit.generation.programs`) runs them all, every example of a row on its own
times. An evaluation at time t knows

    x       the state that the network gets
    base    the state that the step under way started from (corrected, if the sampler corrects)
    now     the clean estimate at x, x - t * velocity
    before  the clean estimates of the last evaluation
    earlier and of the one before it

and sets the next x and base to sums of these five.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vdit.errors import UserError

TERMS = ("x", "base", "now", "before", "earlier")
X, BASE, NOW, BEFORE, EARLIER = np.eye(5)

LARGEST_TIME = 1 - 1e-6
"""Times are cut to this where their log signal-to-noise ratio is needed, which is -inf at 1."""


class Plan(NamedTuple):
    """What to do at each evaluation.

    Attributes:
      times_E: float64, time of each evaluation.
      weights_E25: float64, weights of the next x and the next base over `TERMS`.
    """

    times_E: np.ndarray
    weights_E25: np.ndarray


class Process(NamedTuple):
    """Signal and noise shares at a time: x_t = signal * x_0 + noise * e."""

    signal: Callable[[float], float]
    noise: Callable[[float], float]


FLOW = Process(lambda t: 1 - t, lambda t: t)
"""Rectified flow, the process that models are trained on."""

VP = Process(lambda t: (1 - t) / np.hypot(1 - t, t), lambda t: t / np.hypot(1 - t, t))
"""The variance-preserving state with the signal-to-noise ratio of the flow's time t."""

IDLE = np.stack([X, BASE])
"""Weights that change nothing."""


def euler(times_S: np.ndarray, process: Process) -> Plan:
    """Order 1: along the slope at the start of a step (for VP: DDIM, Song et al. 2021)."""
    weights = [np.stack([step, step]) for step in map(_first_order(process), times_S[:-1], times_S[1:])]
    return Plan(times_S[:-1], np.array(weights))


def heun(times_S: np.ndarray, process: Process) -> Plan:
    """Order 2: the mean of the slopes at both ends of a step (Karras et al. 2022, algorithm 1); two evaluations.

    The last step to time 0 is of order 1, for the slope at 0 does not follow from a clean estimate.

    Raises:
      ValueError: for another process than the flow.
    """
    if process is not FLOW:
        raise ValueError("heun is written for the flow only")
    times, weights = [], []
    for now, after in zip(times_S[:-1], times_S[1:], strict=True):
        times.append(now)
        guess = _first_order(process)(now, after)
        if after == 0:
            weights.append(np.stack([guess, guess]))
            continue
        weights.append(np.stack([guess, X]))
        slopes = (BASE - BEFORE) / now + (X - NOW) / after
        mean = BASE + (after - now) / 2 * slopes
        times.append(after)
        weights.append(np.stack([mean, mean]))
    return Plan(np.array(times), np.array(weights))


def dpm(times_S: np.ndarray, process: Process) -> Plan:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2), order 2; the first and the last step are of order 1."""
    half = _log_ratio(process)(times_S)
    weights = []
    for i, (now, after) in enumerate(zip(times_S[:-1], times_S[1:], strict=True)):
        step = _first_order(process)(now, after)
        if 0 < i < len(times_S) - 2:
            ratio = (half[i] - half[i - 1]) / (half[i + 1] - half[i])
            step = step + step @ NOW * (NOW - BEFORE) / (2 * ratio)
        weights.append(np.stack([step, step]))
    return Plan(times_S[:-1], np.array(weights))


def unipc(times_S: np.ndarray, process: Process) -> Plan:
    """UniPC-2 with B_2(h) (Zhao et al. 2023), order 2: every evaluation also corrects the step that led to it.

    The first and the last step are of order 1 before their correction, which is what limits the order.
    """
    half = _log_ratio(process)(times_S)
    signal, noise = _shares(process, times_S)
    count = len(times_S) - 1
    order = [min(2, i + 1, count - i) for i in range(count)]
    weights = []
    for i in range(count):
        state = X
        if i:
            kept, gain = noise[i] / noise[i - 1], -signal[i] * np.expm1(half[i - 1] - half[i])
            state = kept * BASE + gain * BEFORE
            if order[i - 1] == 1:
                state = state + gain * (NOW - BEFORE) / 2
            else:
                ratio = (half[i - 2] - half[i - 1]) / (half[i] - half[i - 1])
                past, present = _unipc_weights(half[i] - half[i - 1], ratio)
                state = state + gain * (past * (EARLIER - BEFORE) / ratio + present * (NOW - BEFORE))
        step = _first_order(process)(times_S[i], times_S[i + 1])
        move = (step @ X) * state + (step @ NOW) * NOW
        if order[i] == 2:
            ratio = (half[i - 1] - half[i]) / (half[i + 1] - half[i])
            move = move + (step @ NOW) * (BEFORE - NOW) / ratio / 2
        weights.append(np.stack([move, state]))
    return Plan(times_S[:-1], np.array(weights))


def _unipc_weights(step: float, ratio: float) -> np.ndarray:
    """The corrector's weights of the past and present differences, from the order conditions (equation 7 there)."""
    first = np.expm1(-step) / -step - 1
    second = first / -step - 0.5
    conditions = np.array([first, 2 * second]) / np.expm1(-step)
    return np.linalg.solve([[1.0, 1.0], [ratio, 1.0]], conditions)


SAMPLERS: dict[str, Callable[[np.ndarray, Process], Plan]] = {
    "euler": euler,
    "heun": heun,
    "dpm++": dpm,
    "unipc": unipc,
}


def plan(sampler: str, times_S: np.ndarray, process: Process = FLOW) -> Plan:
    """The plan of a sampler over given times.

    Args:
      sampler: one of `SAMPLERS`.
      times_S: falling from at most 1 to 0 (or to where to stop).
      process: what the states are noised by.

    Raises:
      UserError: if there is no sampler of that name.
    """
    if sampler not in SAMPLERS:
        raise UserError(f"--sampler={sampler} is not one of {', '.join(SAMPLERS)}")
    return SAMPLERS[sampler](np.asarray(times_S, np.float64), process)


def _first_order(process: Process) -> Callable[[float, float], np.ndarray]:
    """Weights of the exact step from `now` to `after` were the clean estimate constant."""

    def step(now: float, after: float) -> np.ndarray:
        kept = process.noise(after) / process.noise(now)
        return kept * X + (process.signal(after) - kept * process.signal(now)) * NOW

    return step


def _shares(process: Process, times_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.array([process.signal(t) for t in times_S]), np.array([process.noise(t) for t in times_S])


def _log_ratio(process: Process) -> Callable[[np.ndarray], np.ndarray]:
    """Half the log signal-to-noise ratio, inf at time 0."""

    def half(times_S: np.ndarray) -> np.ndarray:
        signal, noise = _shares(process, np.minimum(times_S, LARGEST_TIME))
        with np.errstate(divide="ignore"):
            return np.log(signal) - np.log(noise)

    return half
