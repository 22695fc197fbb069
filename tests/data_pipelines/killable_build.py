"""A build of small jobs, for a process of its own: python -m killable_build OUT WORKERS JOBS.

Having done about so many jobs, it says so by a file OUT.waits and waits to be killed.
"""

import pathlib
import sys
import threading

import fake_source

from data_pipelines.building import builder
from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.jobs import jobs
from data_pipelines.media.clip import Options
from data_pipelines.sources.registry import SOURCES

INPUTS, JOB_INPUTS = 30, 3


def prepare() -> None:
    """Makes jobs so small that a build takes many steps."""
    SOURCES.update(fake_source.sources())
    jobs.JOB_INPUTS = JOB_INPUTS


def args(out: str, workers: int = 1, **more) -> BuildArgs:
    return BuildArgs("noisy", out, Options(limit=INPUTS), workers=workers, **more)


class StoppingEncoder(fake_source.FakeEncoder):
    """Encodes the captions of so many jobs, and no more."""

    def __init__(self, out: str, jobs: int) -> None:
        super().__init__()
        self.waits, self.left = pathlib.Path(f"{out}.waits"), jobs

    def encode(self, texts):
        if not self.left:
            self.waits.touch()
            threading.Event().wait()
        self.left -= 1
        return super().encode(texts)


if __name__ == "__main__":
    prepare()
    out, workers, left = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    builder.build(args(out, workers), StoppingEncoder(out, left))
