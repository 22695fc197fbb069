"""Worker processes that may crash or hang: each costs one input, never the build."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from data_pipelines.building.staged import Chunk
from data_pipelines.building.worker import Job
from vdit.errors import UserError

ATTEMPTS = 3
"""An input that hangs or crashes the decoder is tried so often, each time with twice the time."""

STARTUP = 60.0
"""Seconds a process may take to begin with a job."""

LOOK_AHEAD = 4
"""Jobs per worker that may be done before an earlier one is."""


@dataclasses.dataclass
class _Task:
    """A job on its way: `attempts` counts failures by position of the input."""

    job: Job
    ready: Future[Job]
    attempts: collections.Counter[int]
    stuck: int = -1

    @property
    def patience(self) -> int:
        return 2 ** max(self.attempts.values(), default=0)


class Pool:
    """Does jobs in worker processes.

    Args:
      workers: number of processes.
      time_limit: seconds without a frame after which an input counts as hanging.
      reject_timeouts: whether an input that hangs every time is rejected.
      prepare: brings a job's files to this machine; called in threads, ahead of time.
    """

    def __init__(
        self,
        workers: int,
        time_limit: float,
        reject_timeouts: bool = False,
        prepare: Callable[[Job], Job] | None = None,
    ) -> None:
        self._workers = [_Worker() for _ in range(workers)]
        self._time_limit, self._reject_timeouts = time_limit, reject_timeouts
        self._prepare = prepare
        self._threads = ThreadPoolExecutor(max(2, workers), "stage")
        self._done: set[int] = set()
        self._stuck: list[_Task] = []
        self._taken = 0  # chunks of the oldest job

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def run(self, jobs: Iterable[Job], finished: Callable[[Job], bool] = lambda _: False) -> Iterator[Chunk]:
        """Does the jobs that are not `finished` and yields their chunks, in the order of the jobs.

        The oldest job's chunks are yielded while it is still at work.

        Raises:
          UserError: if a source refuses its options, a file cannot be staged, or, after everything else that may be
            done ahead, if an input hangs every time.
          RuntimeError: if a generated clip cannot be made: a fault of the program.
        """
        source, queue = iter(jobs), collections.deque[_Task]()
        waiting: collections.deque[Job] = collections.deque()  # in order, from the oldest that is not done
        self._done, self._stuck, self._taken = set(), [], 0
        while True:
            while len(waiting) < LOOK_AHEAD * len(self._workers) and (job := next(source, None)) is not None:
                waiting.append(job)
                if finished(job):
                    self._done.add(job.number)
                else:
                    queue.append(_Task(job, self._ready(job), collections.Counter()))
            if not waiting:
                return
            oldest = Chunk(waiting[0].folder, waiting[0].number, self._taken)
            if oldest.is_finished():
                yield oldest
                self._taken += 1
                self._tell(oldest.job)
                continue
            if oldest.job in self._done:
                self._done.discard(oldest.job)
                self._taken = 0
                waiting.popleft()
                continue
            self._dispatch(queue, oldest.job)
            if not self._busy:
                if self._stuck and not queue:
                    raise UserError(_stuck_message(self._stuck, self._time_limit))
                continue
            for worker in self._listen():
                self._settle(worker, queue)

    def _tell(self, job: int) -> None:
        """Tells the worker that is at the oldest job how many of its chunks are taken."""
        for worker in self._busy:
            if worker.task and worker.task.job.number == job:
                worker.tell(self._taken)

    @property
    def _busy(self) -> list[_Worker]:
        return [worker for worker in self._workers if worker.task]

    def _ready(self, job: Job) -> Future[Job]:
        if self._prepare:
            return self._threads.submit(self._prepare, job)
        future: Future[Job] = Future()
        future.set_result(job)
        return future

    def _dispatch(self, queue: collections.deque[_Task], oldest: int) -> None:
        """Gives jobs to idle workers; waits for a file to arrive only if nothing else is going on."""
        for worker in self._workers:
            if worker.task or not queue:
                continue
            if self._busy and not queue[0].ready.done():
                return
            task = queue.popleft()
            taken = self._taken if oldest == task.job.number else 0
            task.job = dataclasses.replace(task.ready.result(), verdicts=task.job.verdicts, taken=taken)
            worker.start(task, self._time_limit * task.patience)

    def _listen(self) -> list[_Worker]:
        """Workers that have something to say, or nothing for too long."""
        busy = self._busy
        wait = min(max(0.0, worker.deadline - time.monotonic()) for worker in busy)
        heard = multiprocessing.connection.wait([worker.connection for worker in busy], min(wait, 0.5))
        now = time.monotonic()
        return [worker for worker in busy if worker.connection in heard or now >= worker.deadline]

    def _settle(self, worker: _Worker, queue: collections.deque[_Task]) -> None:
        """Takes note of what became of a worker's job."""
        task = worker.task
        assert task is not None
        kind, text = worker.hear()
        if kind == "done":
            self._done.add(task.job.number)
        elif kind == "refused":
            raise UserError(text)
        elif kind == "failed":
            raise RuntimeError(f"{task.job.inputs[worker.position].item}: {text}")
        elif kind in ("crashed", "hung"):
            self._again(task, worker.position, kind, text, queue)

    def _again(self, task: _Task, position: int, kind: str, text: str, queue: collections.deque[_Task]) -> None:
        task.attempts[position] += 1
        if task.attempts[position] >= ATTEMPTS:
            final = kind == "crashed" or self._reject_timeouts
            if not final:
                task.stuck = position
                self._stuck.append(task)
                return
            verdicts = {**task.job.verdicts, position: text}
            task.job = dataclasses.replace(task.job, verdicts=verdicts)
            task.attempts[position] = 0
        queue.appendleft(task)


def _stuck_message(tasks: list[_Task], limit: float) -> str:
    items = [task.job.inputs[task.stuck].item for task in tasks]
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return (
        f"no frame within {limit * 2 ** (ATTEMPTS - 1):g} s from {', '.join(items[:3])}{more}, tried {ATTEMPTS} times; "
        "what is done is kept: start again to try again, raise --time_limit, or leave such inputs out with "
        "--reject_timeouts"
    )


class _Worker:
    """One process, started when it is first needed and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.connection: Any = None
        self.task: _Task | None = None
        self.position, self.deadline, self._limit = 0, 0.0, 0.0

    def start(self, task: _Task, limit: float) -> None:
        if self._process is None or self._process.poll() is not None:
            self._launch()
        self.task, self.position, self._limit = task, 0, limit
        self.deadline = time.monotonic() + max(limit, STARTUP)  # until it says that it has begun
        with contextlib.suppress(OSError):  # it died while idle: `hear` finds out
            self.connection.send(task.job)

    def tell(self, taken: int) -> None:
        """Says how many chunks of its job are taken."""
        with contextlib.suppress(OSError):  # it died: `hear` finds out
            self.connection.send(taken)

    def _launch(self) -> None:
        self.stop()
        ours, theirs = multiprocessing.Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "data_pipelines.building.worker", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interrupt at the keyboard is the builder's to handle
            env=environment,
        )
        theirs.close()
        self.connection = ours

    def hear(self) -> tuple[str, str]:
        """What the worker says: ("at" | "done" | "refused" | "failed" | "crashed" | "hung", text)."""
        try:
            while self.connection.poll():
                kind, number, text = self.connection.recv()
                if kind == "chunk":
                    return "at", ""
                if kind == "at":
                    self.position, self.deadline = number, time.monotonic() + self._limit
                    continue
                self.task = None
                return kind, text
        except (EOFError, OSError):
            return self._died()
        if time.monotonic() < self.deadline:
            return "at", ""
        self.stop()
        self.task = None
        return "hung", f"no frame within {self._limit:g} s, tried {ATTEMPTS} times"

    def _died(self) -> tuple[str, str]:
        """How the process ended. One that was killed from outside, as for want of memory, may do better next time."""
        assert self._process is not None
        status = self._process.wait()
        self.task = None
        if status == -signal.SIGKILL:
            return "hung", f"the decoder was killed (out of memory?), tried {ATTEMPTS} times"
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return "crashed", f"the decoder crashed ({how}), tried {ATTEMPTS} times"

    def stop(self) -> None:
        """Ends the process at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self.connection is not None:
            self.connection.close()
            self.connection = None
