"""A worker process: decodes jobs that the builder sends, one after another.

It is a process of its own, so that a decoder that crashes or hangs takes nothing else with it. It reports which input
it is at and that it is alive.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
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

from data_pipelines.building import staged
from data_pipelines.building.freed_memory import keep_freed_memory
from data_pipelines.media.clip import Input, Options, Outcome, Rejection
from vdit.errors import UserError
from vdit.io.media import alive

Clips = Callable[[Options, Input], Iterator[Outcome]]
BEAT = 1.0  # seconds between signs of life, at least
AHEAD = 2
"""Chunks of a job that may wait for being taken."""


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
      taken: chunks that the builder has already taken.
    """

    number: int
    inputs: tuple[Input, ...]
    clips: Clips
    options: Options
    folder: Path
    verdicts: dict[int, str] = dataclasses.field(default_factory=dict)
    taken: int = 0


def do(job: Job, report: Callable[[int], None], begin: Callable[[int], None]) -> None:
    """Does what is left to do of a job: chunks that are there stay as they are.

    Args:
      job: what to do.
      report: told the position of the input at work, as often as something happens.
      begin: told the index of every chunk before it is begun.

    Raises:
      UserError: if the source finds the options impossible.
    """
    chunks = staged.finished_chunks(job.folder, job.number)
    if not (chunks and chunks[-1].is_last()):
        there = collections.Counter(entry.entry["input"] for chunk in chunks for entry in chunk.read())
        staged.write(job.folder, job.number, len(chunks), _outcomes(job, report, there), begin)


def _outcomes(
    job: Job, report: Callable[[int], None], there: collections.Counter[int]
) -> Iterator[tuple[int, Outcome]]:
    """Outcomes with their inputs' positions, without those that are `there`, counted by input."""
    beginning = max(there, default=0)
    for position, source in enumerate(job.inputs[beginning:], start=beginning):
        if position in job.verdicts:
            yield position, Rejection(source.item, source.split, job.verdicts[position])
            continue
        report(position)
        try:
            for outcome in itertools.islice(job.clips(job.options, source), there[position], None):
                yield position, outcome
                del outcome  # see `staged.write`
                report(position)
        except (UserError, MemoryError):
            raise
        except Exception as error:  # whatever a file can bring about costs that file alone
            if not source.path:
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
            yield position, Rejection(source.item, source.split, reason)


def serve(connection: multiprocessing.connection.Connection) -> None:
    """Does jobs until the builder closes the connection."""
    while True:
        try:
            while isinstance(job := connection.recv(), int):  # said of a job that is done by now
                pass
        except EOFError:
            return
        try:
            reporter = _Reporter(connection, job)
            do(job, reporter, reporter.begin)
            connection.send(("done", job.number, ""))
        except UserError as error:
            connection.send(("refused", job.number, str(error)))
        except MemoryError:
            os._exit(101)
        except Exception as error:
            connection.send(("failed", job.number, f"{error!r}\n{traceback.format_exc()}"))


class _Reporter:
    """Sends the position when it changes, and a sign of life at most every `BEAT` seconds."""

    def __init__(self, connection: Any, job: Job) -> None:
        self._connection, self._position, self._sent = connection, -1, 0.0
        self._taken = job.taken
        alive.listen(self.beat)

    def __call__(self, position: int) -> None:
        changed, self._position = position != self._position, position
        self.beat(changed)

    def begin(self, chunk: int) -> None:
        """Tells of the chunks before, and waits until no more than `AHEAD` of them are not yet taken."""
        if chunk:
            self._connection.send(("chunk", chunk, ""))
        while chunk - self._taken > AHEAD:
            if self._connection.poll(BEAT):
                self._taken = max(self._taken, self._connection.recv())
            self.beat()

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
    keep_freed_memory()
    warnings.simplefilter("ignore")  # decoders warn of much; what matters is in the ledger
    serve(multiprocessing.connection.Connection(int(sys.argv[1])))


if __name__ == "__main__":
    # Under its real name, so that functions sent by name find the same module.
    from data_pipelines.building import worker

    worker.main()
