"""A worker process: does jobs that it is sent, one after another.

It is a process of its own, so that a decoder that crashes or hangs takes nothing else with it. It tells which input it
is at and that it is alive, and asks whoever sent the job to encode captions and pixels: it never starts JAX.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import sys
import threading
import time
import traceback
import warnings
from typing import Any

import numpy as np

from data_pipelines.building.curation.program import ClipRequest
from data_pipelines.building.engines.freed_memory import keep_freed_memory
from data_pipelines.building.jobs.do_job import do_job
from vdit.errors import UserError
from vdit.io.media import alive
from vdit.io.storage.failures import as_user_error

BEAT = 1.0
"""Seconds between signs of life, at least."""


def serve(connection: multiprocessing.connection.Connection) -> None:
    """Does jobs until the other end is closed.

    It is sent pairs (recipe, job). It sends ("at", position), and (name, arguments) of a method of `Services`, which is
    answered with what that returns; at a job's end ("done", None), ("refused", UserError) or ("failed", what went
    wrong).
    """
    while True:
        try:
            recipe, job = connection.recv()
        except EOFError:
            return
        try:
            asking = _Asking(connection)
            do_job(recipe, job, asking, asking.report)
            connection.send(("done", None))
        except UserError as error:
            connection.send(("refused", error))
        except MemoryError:
            os._exit(101)
        except Exception as error:
            known = as_user_error(error)
            connection.send(("refused", known) if known else ("failed", f"{error!r}\n{traceback.format_exc()}"))


class _Asking:
    """What `do_job` needs of others. Sends the position when it changes, and at least every `BEAT` seconds."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._position, self._sent = connection, -1, 0.0
        alive.listen(lambda: self.report(self._position))

    def report(self, position: int) -> None:
        if position != self._position or time.monotonic() - self._sent >= BEAT:
            self._position, self._sent = position, time.monotonic()
            self._connection.send(("at", position))

    def encode(self, captions: list[str], videos: list[np.ndarray]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        features, latents = self._ask("encode", captions, videos)
        return features, latents

    def embed(self, clips: list[np.ndarray]) -> np.ndarray:
        embedding_NE: np.ndarray = self._ask("embed", clips)
        return embedding_NE

    def caption(self, request: ClipRequest) -> dict[str, str]:
        captions: dict[str, str] = self._ask("caption", request)
        return captions

    def detect(self, request: ClipRequest) -> dict[str, float]:
        box: dict[str, float] = self._ask("detect", request)
        return box

    def _ask(self, service: str, *arguments: Any) -> Any:
        self._connection.send((service, arguments))
        return self._connection.recv()


def _end_with_parent() -> None:
    """Ends this process soon after its parent was killed, even in the middle of a job."""
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
    from data_pipelines.building.engines import worker

    worker.main()
