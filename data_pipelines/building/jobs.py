"""Cutting a source's inputs into jobs: one job makes one shard, whose name is known before any is done.

Which inputs a job has follows from the listing alone, so the data set is the same whatever does the jobs, and in
whatever order.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from data_pipelines.media.clip import Input, Options, Outcome
from vdit.patches import Patch

Clips = Callable[[Options, Input], Iterator[Outcome]]

JOB_INPUTS, JOB_BYTES = 128, 64 << 20
"""A job holds no more inputs, nor more bytes, unless it is one input, or there would be too many jobs."""

MAX_JOBS = 100_000
"""About so many jobs there are at most; their shards' names are listed in one file."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What all jobs of a build have in common.

    Attributes:
      clips: function of the source; processes import it by name.
      options: what the user asks of it.
      patch: extent of a patch in what is stored.
      time_stride: frames of pixels in one stored frame.
      latents: whether latents are stored, and no pixels.
      shards: folder or URL of the shards.
      results: folder or URL of the jobs' results.
      captioner: what captions the clips; empty = their source does.
    """

    clips: Clips
    options: Options
    patch: Patch
    time_stride: int
    latents: bool
    shards: str
    results: str
    captioner: str = ""


@dataclasses.dataclass(frozen=True)
class Job:
    """Inputs of one split whose clips make one shard.

    Attributes:
      number: of the job.
      split: of its inputs and their clips.
      file: name of the shard.
      inputs: what is read.
      places: place of each input in the listing.
      verdicts: by position in `inputs`, why an input is not tried any more.
    """

    number: int
    split: str
    file: str
    inputs: tuple[Input, ...]
    places: tuple[int, ...]
    verdicts: dict[int, str] = dataclasses.field(default_factory=dict)

    @property
    def result(self) -> str:
        """Name of the file with its result."""
        return f"{self.number:06d}.npz"


def plan_jobs(inputs: Sequence[Input], name: str) -> list[Job]:
    """Puts inputs together, in order, those of one split in one job.

    Args:
      inputs: all that is to be read.
      name: TFDS name of the data set.
    """
    groups = _group(inputs)
    splits = [inputs[places[0]].split for places in groups]
    totals, seen = Counter(splits), Counter[str]()
    jobs = []
    for number, (split, places) in enumerate(zip(splits, groups, strict=True)):
        file = shard_name(name, split, seen[split], totals[split])
        seen[split] += 1
        jobs.append(Job(number, split, file, tuple(inputs[place] for place in places), places))
    return jobs


def shard_name(name: str, split: str, shard: int, shards: int) -> str:
    """File name of a shard, as TFDS has it."""
    return f"{name}-{split}.array_record-{shard:05d}-of-{shards:05d}"


def _group(inputs: Sequence[Input]) -> list[tuple[int, ...]]:
    """Places of the inputs of each job, the jobs in the order of their first inputs."""
    most_inputs = max(JOB_INPUTS, len(inputs) // MAX_JOBS)
    most_bytes = max(JOB_BYTES, sum(each.weight for each in inputs) // MAX_JOBS)
    groups: list[list[int]] = []
    current: dict[str, tuple[list[int], int]] = {}  # by split: the group that is being filled, and its bytes
    for place, each in enumerate(inputs):
        members, weight = current.get(each.split, ([], 0))
        if not members or len(members) == most_inputs or weight + each.weight > most_bytes:
            members, weight = [], 0
            groups.append(members)
        members.append(place)
        current[each.split] = members, weight + each.weight
    return [tuple(members) for members in groups]
