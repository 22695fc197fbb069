"""Cutting a source's inputs into jobs, and jobs into the shards of several machines."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from data_pipelines.building import staged
from data_pipelines.building.worker import Job
from data_pipelines.media.clip import Input, Options
from data_pipelines.sources.registry import Source
from vdit.io import remote
from vdit.io.files import is_remote

JOB_INPUTS, JOB_WEIGHT = 64, 64 << 20
"""A job holds no more inputs, nor more bytes, unless it is one input."""


def group(inputs: Iterable[Input]) -> list[tuple[Input, ...]]:
    """Puts small inputs together, in order, those of one split in one job.

    A job's arrays stay on disk until all of them are in closed shards, which takes long for a small split.
    """
    groups: list[tuple[Input, ...]] = []
    open_groups: dict[str, list[Input]] = {}
    for each in inputs:
        members = open_groups.setdefault(each.split, [])
        full = len(members) == JOB_INPUTS or sum(m.weight for m in members) + each.weight > JOB_WEIGHT
        if members and full:
            groups.append(tuple(members))
            members = open_groups[each.split] = []
        members.append(each)
    return groups + [tuple(members) for members in open_groups.values()]


def share(groups: Sequence[tuple[Input, ...]], shard: int, shards: int) -> range:
    """Numbers of the jobs that machine `shard` of `shards` does: a run of them, of about its share of all bytes."""
    weights = [1 + sum(each.weight for each in members) for members in groups]
    total, before = sum(weights), 0
    owners = []
    for weight in weights:
        owners.append(before * shards // total)
        before += weight
    mine = [number for number, owner in enumerate(owners) if owner == shard]
    return range(mine[0], mine[-1] + 1) if mine else range(0)


def make_jobs(
    source: Source, options: Options, groups: Sequence[tuple[Input, ...]], numbers: range, folder: Path
) -> Iterator[Job]:
    """The jobs of those numbers; their outcomes go to `folder`."""
    for number in numbers:
        yield Job(number, groups[number], source.clips, options, folder)


def fetch_inputs(job: Job) -> Job:
    """Copies the job's remote files to this machine."""
    inputs = []
    for each in job.inputs:
        if is_remote(each.path):
            local = job.folder / f"fetched-{job.number:08d}" / remote.local_name(each.path)
            each = dataclasses.replace(each, path=str(remote.fetch(each.path, local)))
        inputs.append(each)
    return dataclasses.replace(job, inputs=tuple(inputs))


def forget_inputs(folder: Path, number: int) -> None:
    """Removes what `fetch_inputs` has copied for a job."""
    remote.remove(folder / f"fetched-{number:08d}")


class Finished:
    """Which jobs need not be done again.

    A job is finished if all its chunks are there, with the arrays of all clips that do not lie in closed shards. A
    chunk whose arrays are lost is removed, with those after it, so that they are made again. Asked for one job after
    another, in order.

    Args:
      written: number of examples in closed shards, by split; 0 for others.
    """

    def __init__(self, written: dict[str, int]) -> None:
        self._written, self._seen = written, dict.fromkeys(written, 0)

    def __call__(self, job: Job) -> bool:
        chunks = staged.finished_chunks(job.folder, job.number)
        needed = [self._needed(chunk) for chunk in chunks]  # counts, so that none may be left out
        for i, chunk in enumerate(chunks):
            if needed[i] and not chunk.has_arrays():
                for lost in reversed(chunks[i:]):
                    lost.json.unlink()
                return False
        return bool(chunks) and chunks[-1].is_last()

    def _needed(self, chunk: staged.Chunk) -> bool:
        needed = False
        for entry in chunk.read():
            if entry.is_clip:
                split = entry.entry["split"]
                self._seen[split] = self._seen.get(split, 0) + 1
                needed |= self._seen[split] > self._written.get(split, 0)
        return needed
