"""A run that gets a signal to stop saves a checkpoint first, at a step on which all its processes agree."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from vdit.command.stopping import Request, Stopped, noted


class Preempted(Stopped):
    """The run got a signal to stop; `step` is that of the checkpoint it has saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped as asked, after step {step}; the same command resumes from there")
        self.step = step


class Notice:
    """Whether this run has got a signal to stop."""

    def __init__(self, request: Request) -> None:
        self._request = request

    @property
    def asked(self) -> bool:
        """Whether a signal has come; with several processes JAX keeps SIGTERM to itself, and this stays False."""
        return self._request.asked

    def reached(self, step: int) -> bool:
        """Whether to save and stop after this step; all processes must call this after every step but the last.

        After that a run only evaluates, saves and writes its result: to start again would take longer than to finish.

        With several processes the signal reaches the others, and all agree on the step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked


@contextlib.contextmanager
def notice() -> Iterator[Notice]:
    """Listens for requests to stop (see `vdit.command.stopping`).

    With several processes JAX listens for SIGTERM itself, from jax.distributed.initialize on; the others become one.
    """
    with noted(_terminate if jax.process_count() > 1 else None) as request:
        yield Notice(request)


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
