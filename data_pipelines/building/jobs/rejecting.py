"""Leaving near duplicates out of a build, as `--reject=duplicate` asks, when all of its jobs are done.

What is left out is decided once, from all clips, and noted beside the results: shards are then made anew one after
another, and a build that is stopped between two of them resumes with the same decision.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from data_pipelines.building.curation.duplicates import PLAIN, find_duplicates
from data_pipelines.building.jobs.do_job import whole_target
from data_pipelines.building.jobs.jobs import JobName, Recipe
from data_pipelines.building.jobs.result import Result, load_result
from data_pipelines.building.writing.ledger import STORED, Entry
from data_pipelines.building.writing.shard import without
from vdit.io.files import is_remote
from vdit.io.storage import remote

DECISION_FILE = "duplicates.json"


def reject_duplicates(recipe: Recipe, jobs: Sequence[JobName]) -> None:
    """Of clips that look alike the first one stays, and one of another split than train rather than one of train.

    Args:
      recipe: of the build.
      jobs: all of its jobs, which are done.
    """
    path = f"{recipe.results}/{DECISION_FILE}"
    if not remote.exists(path):
        decided = dict(_decide(recipe, jobs))
        remote.write_bytes(path, json.dumps(decided).encode())
    decision = json.loads(remote.read_bytes(path))
    for job in jobs:
        if reasons := decision.get(job.result):
            place = f"{recipe.results}/{job.result}"
            result = load_result(place)
            if result.shard.examples == len(reasons):  # else its shard is made anew already
                _leave_out(recipe, result, reasons).save(place)


def _decide(recipe: Recipe, jobs: Sequence[JobName]) -> Iterator[tuple[str, list[str]]]:
    """Of each job that loses clips, by the name of its result: why each clip is left out; empty for those that stay."""
    results = [load_result(f"{recipe.results}/{job.result}") for job in jobs]
    compared = [n for n, result in enumerate(results) if result.shard.hash_NB is not None]
    if not compared:
        return
    shards = [results[n].shard for n in compared]
    contrast_N = np.concatenate([shard.index.measures["contrast"] for shard in shards if shard.index])
    embeddings = [shard.embedding_NE for shard in shards if shard.embedding_NE is not None]
    group_N = find_duplicates(
        np.concatenate([shard.hash_NB for shard in shards if shard.hash_NB is not None]),
        contrast_N >= PLAIN,
        np.concatenate(embeddings) if embeddings else None,
    ).group_N
    items = [(jobs[n].split, entry.item) for n in compared for entry in results[n].entries if entry.status in STORED]
    in_train_N = np.array([split == "train" for split, _ in items])
    order = np.lexsort((np.arange(len(group_N)), in_train_N, group_N))
    first = order[np.r_[True, np.diff(group_N[order]) > 0]]  # of each group, by its number
    reasons = [
        "" if first[group] == clip else "not wanted: duplicate of {} {}".format(*items[first[group]])
        for clip, group in enumerate(group_N.tolist())
    ]
    start = 0
    for n, shard in zip(compared, shards, strict=True):
        mine, start = reasons[start : start + shard.examples], start + shard.examples
        if any(mine):
            yield jobs[n].result, mine


def _leave_out(recipe: Recipe, result: Result, reasons: list[str]) -> Result:
    """Makes a shard anew without the clips that have a reason; the result, whose entries say so."""
    shard = result.shard
    with TemporaryDirectory(prefix="vdit-") as folder, whole_target(recipe.shards, shard.file) as target:
        place = f"{recipe.shards}/{shard.file}"
        source = remote.fetch(place, Path(folder) / shard.file) if is_remote(place) else Path(place)
        shard = without(shard, source, target, np.array([not reason for reason in reasons]))
    left = iter(reasons)
    entries = [_rejected(entry, next(left)) if entry.status in STORED else entry for entry in result.entries]
    return Result(shard, result.places, tuple(entries))


def _rejected(entry: Entry, reason: str) -> Entry:
    if not reason:
        return entry
    return dataclasses.replace(entry, status="rejected", reason=reason, shape_after=None, fps_after=0.0)
