"""A worker process: decodes jobs that the builder sends, one after another.

It is a process of its own, so that a decoder that crashes or hangs takes nothing else with it. It reports which input
it is at and that it is alive.
"""

from __future__ import annotations

import dataclasses
import multiprocessing.connection
import os
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from data_pipelines import alive, staged
from data_pipelines.clip import Input, Options, Outcome, Rejection
from vdit.config import UserError

Clips = Callable[[Options, Input], Iterator[Outcome]]
BEAT = 1.0  # seconds between signs of life, at least


@dataclasses.dataclass(frozen=True)
class Job:
    """Inputs that are decoded in one go.

    Attributes:
      number: of the job; its outcomes go to files of that number in `folder`.
      inputs: what is decoded.
      clips: function of the source. It is sent by name.
      options: what the user asks.
      folder: where outcomes are written.
      verdicts: by position in `inputs`, why an input is not tried any more.
    """

    number: int
    inputs: tuple[Input, ...]
    clips: Clips
    options: Options
    folder: Path
    verdicts: dict[int, str] = dataclasses.field(default_factory=dict)


def do(job: Job, report: Callable[[int], None]) -> None:
    """Does a job; `report` is told the position of the input at work, as often as something happens.

    Raises:
      UserError: if the source finds the options impossible.
    """
    staged.write(job.folder, job.number, _outcomes(job, report))


def _outcomes(job: Job, report: Callable[[int], None]) -> Iterator[Outcome]:
    for position, source in enumerate(job.inputs):
        if position in job.verdicts:
            yield Rejection(source.item, source.split, job.verdicts[position])
            continue
        report(position)
        try:
            for outcome in job.clips(job.options, source):
                yield outcome
                report(position)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a file can bring about costs that file alone
            if not source.path:
                raise
            yield Rejection(source.item, source.split, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")


def serve(connection: multiprocessing.connection.Connection) -> None:
    """Does jobs until the builder closes the connection."""
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            do(job, _Reporter(connection))
            connection.send(("done", job.number, ""))
        except UserError as error:
            connection.send(("refused", job.number, str(error)))
        except MemoryError:
            os._exit(101)
        except Exception as error:
            connection.send(("failed", job.number, f"{error!r}\n{traceback.format_exc()}"))


class _Reporter:
    """Sends the position when it changes, and a sign of life at most every `BEAT` seconds."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._position, self._sent = connection, -1, 0.0
        alive.listen(self.beat)

    def __call__(self, position: int) -> None:
        changed, self._position = position != self._position, position
        self.beat(changed)

    def beat(self, now: bool = False) -> None:
        if now or time.monotonic() - self._sent >= BEAT:
            self._sent = time.monotonic()
            self._connection.send(("at", self._position, ""))


def _end_with_parent() -> None:
    """Ends this process soon after the builder was killed, even in the middle of a job."""
    parent = os.getppid()
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def main() -> None:
    """Entry point of the process; argv holds the number of the inherited socket."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    warnings.simplefilter("ignore")  # decoders warn of much; what matters is in the ledger
    serve(multiprocessing.connection.Connection(int(sys.argv[1])))


if __name__ == "__main__":
    # Under its real name, so that functions sent by name find the same module.
    from data_pipelines import worker

    worker.main()
