"""Runs jobs in processes on this machine."""

from __future__ import annotations

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from data_pipelines.building.encoders import Encoders
from data_pipelines.building.engines.isolation import Limits, Worker, stuck_error
from data_pipelines.building.fetching import fetched
from data_pipelines.building.jobs import Job, Recipe


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

    def run(self, recipe: Recipe, jobs: Sequence[Job]) -> Iterator[Job]:
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
        try:
            running = {threads.submit(do, job): job for job in jobs}
            for future in as_completed(running):
                if item := future.result():
                    stuck.append(item)
                else:
                    yield running[future]
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
