"""Being asked to stop: SIGTERM, which clouds and schedulers send some seconds before they take a machine away."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Preempted(Exception):
    """The run was asked to stop; `step` is that of the checkpoint it has saved."""

    def __init__(self, step: int):
        super().__init__(f"stopped as asked, after step {step}; the same command goes on from there")
        self.step = step


class Notice:
    """Tells whether this run has been asked to stop."""

    def __init__(self) -> None:
        self._asked = threading.Event()

    @property
    def asked(self) -> bool:
        """Whether a signal has come; with several processes JAX keeps it to itself, and this stays False."""
        return self._asked.is_set()

    def reached(self, step: int) -> bool:
        """Whether to save and stop after this step; all processes must ask after every step but the last.

        After that a run only evaluates, saves and writes its result: to start again would take longer than to finish.

        With several processes the one that got the signal tells the others, and all agree on the step.
        """
        if jax.process_count() > 1:
            return multihost_utils.reached_preemption_sync_point(step)
        return self.asked

    def note(self, number: int, frame: FrameType | None) -> None:
        """Signal handler."""
        del number, frame
        self._asked.set()


_open: Notice | None = None


@contextlib.contextmanager
def notice() -> Iterator[Notice]:
    """Listens for SIGTERM; with several processes JAX does so itself, from jax.distributed.initialize on.

    Within another one it is that one, which may have been asked already.
    """
    global _open
    if _open:
        yield _open
        return
    found = _open = Notice()
    listen = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, found.note) if listen else None
    try:
        yield found
    finally:
        _open = None
        if listen:
            signal.signal(signal.SIGTERM, before)
