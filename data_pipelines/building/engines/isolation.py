"""Doing jobs in a process that may crash or hang: that costs one input, never the build."""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from data_pipelines.building.jobs.do_job import Services
from data_pipelines.building.jobs.jobs import Job, Recipe
from vdit.errors import UserError

ATTEMPTS = 3
"""An input that hangs or crashes the decoder is tried so often, each time with twice the time."""

SERVICES = ("encode", "embed", "caption", "detect")
"""Methods of `do_job.Services`, which a process sends as messages."""

STARTUP = 60.0
"""Seconds a process may take to begin with a job."""


@dataclasses.dataclass(frozen=True)
class Limits:
    """How long an input may take.

    Attributes:
      seconds: without a frame after which an input counts as hanging.
      reject: whether an input that hangs every time is rejected.
    """

    seconds: float
    reject: bool = False


class Worker:
    """A process that does one job at a time; started when it is first needed, and again after it died.

    Args:
      limits: of an input.
      services: what the process does not do itself.
    """

    def __init__(self, limits: Limits, services: Services) -> None:
        self._limits, self._services = limits, services
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Any = None
        self._stopped = False

    def do(self, recipe: Recipe, job: Job) -> str:
        """Does a job.

        Returns:
          "", or the item of the job that hangs every time: the job is not done then.

        Raises:
          UserError: if the source refuses its options, or nothing can be written.
          RuntimeError: if a generated clip cannot be made: a fault of the program.
        """
        failures: Counter[int] = Counter()  # by position of the input
        while True:
            position, reason, final = self._attempt(recipe, job, 2 ** max(failures.values(), default=0))
            if not reason:
                return ""
            failures[position] += 1
            if failures[position] < ATTEMPTS:
                continue
            if not (final or self._limits.reject):
                return job.inputs[position].item
            job = dataclasses.replace(job, verdicts={**job.verdicts, position: f"{reason}, tried {ATTEMPTS} times"})
            del failures[position]

    def _attempt(self, recipe: Recipe, job: Job, patience: int) -> tuple[int, str, bool]:
        """(input at work, what went wrong with it, whether that may be final); no reason if the job is done."""
        if self._stopped:
            raise _stopped_error()
        if self._process is None or self._process.poll() is not None:
            self._launch()
        limit, position = self._limits.seconds * patience, 0
        deadline = time.monotonic() + max(limit, STARTUP)  # until it says that it has begun
        try:
            self._connection.send((recipe, job))
            while self._connection.poll(max(0.0, deadline - time.monotonic())):
                kind, value = self._connection.recv()
                if kind == "at":
                    position = value
                elif kind in SERVICES:
                    self._connection.send(getattr(self._services, kind)(*value))
                elif kind == "done":
                    return position, "", False
                elif kind == "refused":
                    raise value
                else:
                    raise RuntimeError(f"{job.inputs[position].item}: {value}")
                deadline = time.monotonic() + limit
        except (EOFError, ConnectionError):
            return position, *self._death()
        self._kill()
        return position, f"no frame within {limit:g} s", False

    def _death(self) -> tuple[str, bool]:
        """How the process ended, and whether that is the input's doing.

        One that was killed from outside, as for want of memory, may do better another time.
        """
        if self._stopped or self._process is None:
            raise _stopped_error()
        status = self._process.wait()
        if status == -signal.SIGKILL:
            return "the decoder was killed (out of memory?)", False
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"the decoder crashed ({how})", True

    def _launch(self) -> None:
        self._kill()
        ours, theirs = multiprocessing.Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "data_pipelines.building.engines.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the keyboard is the builder's to handle
            env=environment,
        )
        theirs.close()
        self._connection = ours
        if self._stopped:
            self._kill()

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._connection is not None:
            with contextlib.suppress(OSError):
                self._connection.close()

    def stop(self) -> None:
        """Ends the process at once; a job that another thread is at ends with UserError."""
        self._stopped = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _stopped_error() -> UserError:
    return UserError("the build was stopped; start it again to resume from here")


def stuck_error(items: Sequence[str], limits: Limits) -> UserError:
    """Says which inputs hang every time."""
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return UserError(
        f"no frame within {limits.seconds * 2 ** (ATTEMPTS - 1):g} s from {', '.join(items[:3])}{more}, tried "
        f"{ATTEMPTS} times; what is done is kept: start again to try again, raise --time_limit, or leave such inputs "
        "out with --reject_timeouts"
    )
