"""Runs jobs in processes on this machine."""

from __future__ import annotations

import queue
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from data_pipelines.building.encoders import Encoders
from data_pipelines.building.engines.isolation import Limits, Worker, stuck_error
from data_pipelines.building.jobs.fetching import fetched
from data_pipelines.building.jobs.jobs import Job, Recipe


class LocalEngine:
    """See `engines.Engine`. Encoders stay in this process, which alone holds the accelerators.

    Args:
      workers: number of processes.
      limits: of an input.
      encoders: of captions and pixels, which this process does itself.
    """

    def __init__(self, workers: int, limits: Limits, encoders: Encoders) -> None:
        self._workers = [Worker(limits, encoders) for _ in range(workers)]
        self._limits, self.encoders = limits, encoders

    def run(self, recipe: Recipe, jobs: Iterable[Job]) -> Iterator[Job]:
        """See `engines.Engine.run`."""
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self._workers:
            idle.put(worker)

        def do(job: Job) -> str:
            with fetched(recipe, job) as ready:
                worker = idle.get()
                try:
                    return worker.do(recipe, ready)
                finally:
                    idle.put(worker)

        stuck: list[str] = []
        # Twice as many threads as processes: the files of the next jobs are fetched while these are at work.
        threads = ThreadPoolExecutor(2 * len(self._workers), "job")
        waiting, running = iter(jobs), dict[Future[str], Job]()
        try:
            while True:
                for job in islice(waiting, 2 * len(self._workers) - len(running)):
                    running[threads.submit(do, job)] = job
                if not running:
                    break
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    if item := future.result():
                        stuck.append(item)
                    else:
                        yield job
        finally:
            self.close()
            threads.shutdown(cancel_futures=True)
        if stuck:
            raise stuck_error(sorted(stuck), self._limits)

    def close(self) -> None:
        """Ends all processes at once."""
        for worker in self._workers:
            worker.stop()
        self.encoders.close()
