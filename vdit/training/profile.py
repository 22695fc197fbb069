"""An xprof trace of chosen steps (config.train.profile), in the workdir's profile/."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import jax

from vdit.training.run import Trainable


@contextlib.contextmanager
def profiled(run: Trainable) -> Iterator[Callable[[int], None]]:
    """A function to call before each step; of the steps to trace those that are taken are recorded."""
    first, window = run.position.step, run.config.train.profile
    tracing = False

    def stop() -> None:
        nonlocal tracing
        if tracing:
            jax.block_until_ready(run.state)
            jax.profiler.stop_trace()
        tracing = False

    def before(step: int) -> None:
        nonlocal tracing
        if window and step == max(first, window[0]) < window[1]:
            jax.profiler.start_trace(str(run.workdir / "profile"))
            tracing = True
        if window and step == window[1]:
            stop()

    try:
        yield before
    finally:
        stop()
