"""Waiting for what threads and other processes do, which takes as long as the machine lets it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable

SECONDS = 300.0  # far more than it takes on a machine that is busy with other things


def wait_until(
    condition: Callable[[], object],
    process: subprocess.Popen | None = None,
    log: Callable[[], str] = str,
) -> None:
    """Returns once `condition` holds; fails with the text of `log` if it never does, or if `process` ends before.

    Tests wait for what must happen, and never for a span of time in which it should have.
    """
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"it did not happen within {SECONDS:g} s; {log()}"
        ended = process is not None and process.poll() is not None
        assert not ended or condition(), f"the process that should do it has ended; {log()}"
        time.sleep(0.01)
