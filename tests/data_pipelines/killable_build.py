"""A build with small shards and jobs, for a process of its own: python -m killable_build OUT WORKERS CHUNKS.

Having taken so many chunks, it says so by a file OUT.waits and waits to be killed; its workers go on.
"""

import functools
import pathlib
import signal
import sys

import fake_source

from data_pipelines import build as build_module
from data_pipelines.building import jobs, staged
from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.writer import PartWriter
from data_pipelines.media.clip import Options
from data_pipelines.sources.registry import SOURCES

INPUTS, SHARD_BYTES, JOB_INPUTS, CHUNK_BYTES = 30, 150_000, 3, 100_000


def prepare() -> None:
    """Makes everything so small that a build takes many steps."""
    SOURCES.update(fake_source.sources())
    build_module.PartWriter = functools.partial(PartWriter, shard_bytes=SHARD_BYTES)
    jobs.JOB_INPUTS = JOB_INPUTS
    staged.CHUNK_BYTES = CHUNK_BYTES


def args(out: str, workers: int = 1, **more) -> BuildArgs:
    return BuildArgs("noisy", out, Options(limit=INPUTS), workers=workers, **more)


if __name__ == "__main__":
    prepare()
    take = build_module.Assembler.take

    left = int(sys.argv[3])

    def take_some(self, chunk) -> None:
        global left
        if not left:
            pathlib.Path(f"{sys.argv[1]}.waits").touch()
            signal.pause()
        left -= 1
        take(self, chunk)

    build_module.Assembler.take = take_some
    build_module.build(args(sys.argv[1], int(sys.argv[2])), fake_source.FakeEncoder())
