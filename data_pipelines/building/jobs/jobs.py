"""Cutting a source's inputs into jobs: one job makes one shard, whose name is known before any is done.

Which inputs a job has follows from the listing alone, so the data set is the same whatever does the jobs, and in
whatever order. Of jobs only names are held in memory; their inputs are read when they are done.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from data_pipelines.building.jobs.listing import Listing
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
      detector: what finds their subjects; empty = nothing, or their source.
      embed: whether clips are embedded.
    """

    clips: Clips
    options: Options
    patch: Patch
    time_stride: int
    latents: bool
    shards: str
    results: str
    captioner: str = ""
    detector: str = ""
    embed: bool = False


@dataclasses.dataclass(frozen=True)
class JobName:
    """What is known of a job without its inputs.

    Attributes:
      number: of the job.
      split: of its inputs and their clips.
      file: name of the shard.
    """

    number: int
    split: str
    file: str

    @property
    def result(self) -> str:
        """Name of the file with its result."""
        return f"{self.number:06d}.npz"


@dataclasses.dataclass(frozen=True)
class Job(JobName):
    """Inputs of one split whose clips make one shard.

    Attributes:
      inputs: what is read.
      places: place of each input in the listing.
      verdicts: by position in `inputs`, why an input is not tried any more.
    """

    inputs: tuple[Input, ...]
    places: tuple[int, ...]
    verdicts: dict[int, str] = dataclasses.field(default_factory=dict)


class Jobs:
    """The jobs of a listing, which are read one by one.

    Attributes:
      names: of all of them, in order.
      counts: inputs of each.
    """

    def __init__(self, listing: Listing, names: list[JobName], counts: list[int]) -> None:
        self._listing, self.names, self.counts = listing, names, counts

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Job]:
        return map(self.read, self.names)

    def read(self, name: JobName) -> Job:
        """A job with its inputs."""
        places, inputs = self._listing.of_job(name.number)
        return Job(name.number, name.split, name.file, inputs, places)


def plan_jobs(inputs: Iterable[Input], name: str) -> Jobs:
    """Puts inputs together, in order, those of one split in one job.

    Args:
      inputs: all that is to be read; a `Listing` is taken as it is.
      name: TFDS name of the data set.
    """
    listing = inputs if isinstance(inputs, Listing) else Listing(inputs)
    splits: list[str] = []
    counts: list[int] = []
    listing.assign(_job_numbers(listing, splits, counts))
    totals, seen = Counter(splits), Counter[str]()
    names = []
    for number, split in enumerate(splits):
        names.append(JobName(number, split, shard_name(name, split, seen[split], totals[split])))
        seen[split] += 1
    return Jobs(listing, names, counts)


def shard_name(name: str, split: str, shard: int, shards: int) -> str:
    """File name of a shard, as TFDS has it."""
    return f"{name}-{split}.array_record-{shard:05d}-of-{shards:05d}"


def _job_numbers(listing: Listing, splits: list[str], counts: list[int]) -> Iterator[int]:
    """The job of each input; jobs are numbered by their first inputs, and their splits and sizes put into the lists."""
    most_inputs = max(JOB_INPUTS, len(listing) // MAX_JOBS)
    most_bytes = max(JOB_BYTES, int(listing.weight) // MAX_JOBS)
    current: dict[str, tuple[int, int]] = {}  # by split: the job that is being filled, and its bytes
    for split, weight in listing.splits_and_weights():
        job, filled = current.get(split, (-1, 0))
        if job < 0 or counts[job] == most_inputs or filled + weight > most_bytes:
            job, filled = len(splits), 0
            splits.append(split)
            counts.append(0)
        counts[job] += 1
        current[split] = job, filled + weight
        yield job
