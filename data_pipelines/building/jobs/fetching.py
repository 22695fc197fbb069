"""Bringing a job's remote files to this machine, and removing them again."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from data_pipelines.building.jobs.do_job import scratch_folder
from data_pipelines.building.jobs.jobs import Job, Recipe
from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.io.storage import remote


@contextlib.contextmanager
def fetched(recipe: Recipe, job: Job) -> Iterator[Job]:
    """The job with its files on this machine, for as long as they are needed."""
    if not any(is_remote(each.path) for each in job.inputs):
        yield job
        return
    scratch = scratch_folder(recipe.shards)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        inputs = []
        for each in job.inputs:
            if is_remote(each.path):
                local = remote.fetch(each.path, Path(folder) / remote.local_name(each.path))
                each = dataclasses.replace(each, path=str(local))
            inputs.append(each)
        yield dataclasses.replace(job, inputs=tuple(inputs))


def check_shared(recipe: Recipe, job: Job) -> None:
    """Sees that this machine has the folders that the builder has.

    Raises:
      UserError: naming what is not there.
    """
    places = [recipe.results, *(each.path for each in job.inputs if each.path)]
    for place in places:
        if not is_remote(place) and not os.path.exists(place):
            raise UserError(
                f"the machine {socket.gethostname()} does not have {place}; on a cluster --source and --out are URLs, "
                "or folders that all of its machines share"
            )
