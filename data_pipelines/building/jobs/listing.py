"""The inputs of a build, in order, on the disk: there may be more of them than memory holds."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator

from data_pipelines.media.clip import Input
from vdit.io.disk_dict import temporary_database

_BATCH = 4096


class Listing:
    """Inputs that are kept in a temporary file.

    Args:
      inputs: taken once.
    """

    def __init__(self, inputs: Iterable[Input]) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE inputs (place INTEGER PRIMARY KEY, split, weight, job INTEGER, pickled)")
        rows = ((place, each.split, each.weight, pickle.dumps(each)) for place, each in enumerate(inputs))
        self._database.executemany("INSERT INTO inputs VALUES (?, ?, ?, NULL, ?)", rows)
        self._count, self.weight = self._database.execute("SELECT count(*), total(weight) FROM inputs").fetchone()

    def __len__(self) -> int:
        return int(self._count)

    def __iter__(self) -> Iterator[Input]:
        for (pickled,) in self._database.execute("SELECT pickled FROM inputs ORDER BY place"):
            yield pickle.loads(pickled)

    def splits_and_weights(self) -> Iterator[tuple[str, int]]:
        """Of each input."""
        yield from self._database.execute("SELECT split, weight FROM inputs ORDER BY place")

    def assign(self, jobs: Iterable[int]) -> None:
        """Takes down the number of the job of each input, in order."""
        batch: list[tuple[int, int]] = []
        for place, job in enumerate(jobs):
            batch.append((job, place))
            if len(batch) == _BATCH:
                self._update(batch)
                batch = []
        self._update(batch)
        self._database.execute("CREATE INDEX by_job ON inputs (job, place)")

    def of_job(self, job: int) -> tuple[tuple[int, ...], tuple[Input, ...]]:
        """Places and inputs of a job."""
        query = "SELECT place, pickled FROM inputs WHERE job = ? ORDER BY place"
        rows = self._database.execute(query, (job,)).fetchall()
        return tuple(place for place, _ in rows), tuple(pickle.loads(pickled) for _, pickled in rows)

    def _update(self, batch: list[tuple[int, int]]) -> None:
        self._database.executemany("UPDATE inputs SET job = ? WHERE place = ?", batch)
