"""What a job has made: its shard, and what became of each input. The file is written last: a job with it is done."""

from __future__ import annotations

import dataclasses
import heapq
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO

from data_pipelines.building.jobs.jobs import JobName, Recipe
from data_pipelines.building.writing.ledger import Entry, Ledger, make_entry
from data_pipelines.building.writing.shard import RecordKind, Shard, pack, unpack
from data_pipelines.packing.index import index_of
from vdit.errors import UserError
from vdit.io.storage import remote

READERS = 16
"""Threads that read results, as these may lie in a bucket."""


_TRAITS = {"hashes": "hash_NB", "embeddings": "embedding_NE"}
"""Arrays of a shard by the names that they are stored under."""


@dataclasses.dataclass(frozen=True)
class Result:
    """Of one job.

    Attributes:
      shard: what it has written.
      places: place in the listing of the input that each entry is about, ascending.
      entries: what the ledger says of them.
    """

    shard: Shard
    places: tuple[int, ...]
    entries: tuple[Entry, ...]

    def save(self, path: str) -> None:
        """Writes it, whole or not at all."""
        kind, index = self.shard.kind, self.shard.index
        values = {
            "file": self.shard.file,
            "bytes": self.shard.bytes,
            "signature": self.shard.signature,
            "kind": dataclasses.asdict(kind) if kind else None,
            "places": self.places,
            "entries": [dataclasses.astuple(entry) for entry in self.entries],
        }
        arrays = index.arrays() if index else {}
        arrays |= {name: array for name, field in _TRAITS.items() if (array := getattr(self.shard, field)) is not None}
        remote.write_bytes(path, pack(values, arrays))


def load_result(path: str) -> Result:
    """Reads what `Result.save` wrote.

    Raises:
      UserError: if it is damaged.
    """
    try:
        values, arrays = unpack(remote.read_bytes(path))
        kind = values["kind"] and RecordKind(**{**values["kind"], "captions": tuple(values["kind"]["captions"])})
        traits = {field: arrays.pop(name, None) for name, field in _TRAITS.items()}
        index = index_of(arrays) if arrays else None
        shard = Shard(values["file"], int(values["bytes"]), values["signature"], kind, index, **traits)
        return Result(shard, tuple(values["places"]), tuple(map(make_entry, values["entries"])))
    except (ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}); move it away, and start again to redo its job") from error


def finished_jobs(recipe: Recipe, jobs: Iterable[JobName]) -> set[int]:
    """Numbers of the jobs that are done and whose shards lie there whole."""
    sizes = dict(remote.walk(recipe.shards))
    names = set(remote.list_names(recipe.results))
    candidates = [job for job in jobs if job.result in names and job.file in sizes]

    def is_whole(job: JobName) -> bool:
        try:
            return load_result(f"{recipe.results}/{job.result}").shard.bytes == sizes[job.file]
        except UserError:  # cut short, as by a power cut
            return False

    with ThreadPoolExecutor(READERS) as threads:
        return {job.number for job, whole in zip(candidates, threads.map(is_whole, candidates), strict=True) if whole}


def write_ledger(file: IO[str], recipe: Recipe, jobs: Sequence[JobName]) -> Ledger:
    """Writes what the results say of all inputs, in the order of the listing."""

    def entries(split: str) -> Iterator[tuple[int, Entry]]:
        for job in jobs:
            if job.split == split:
                result = load_result(f"{recipe.results}/{job.result}")
                yield from zip(result.places, result.entries, strict=True)

    ledger = Ledger(file)
    splits = dict.fromkeys(job.split for job in jobs)
    for _, entry in heapq.merge(*map(entries, splits), key=lambda placed: placed[0]):
        ledger.add(entry)
    return ledger
