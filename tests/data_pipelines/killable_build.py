"""A build of small jobs, for a process of its own: python -m killable_build OUT WORKERS."""

import sys
import time

import fake_source

from data_pipelines import build as build_module
from data_pipelines.building import jobs
from data_pipelines.building.build_args import BuildArgs
from data_pipelines.media.clip import Options
from data_pipelines.sources.registry import SOURCES

INPUTS, JOB_INPUTS = 30, 3


def prepare() -> None:
    """Makes jobs so small that a build takes many steps."""
    SOURCES.update(fake_source.sources())
    jobs.JOB_INPUTS = JOB_INPUTS


def args(out: str, workers: int = 1, **more) -> BuildArgs:
    return BuildArgs("noisy", out, Options(limit=INPUTS), workers=workers, **more)


class SlowEncoder(fake_source.FakeEncoder):
    """Leaves time for a kill."""

    def encode(self, texts):
        time.sleep(0.03)
        return super().encode(texts)


if __name__ == "__main__":
    prepare()
    build_module.build(args(sys.argv[1], int(sys.argv[2])), SlowEncoder())
