"""Builds a data set: clips of a source, stored with their captions' features, an index and a ledger.

    python -m data_pipelines.build --source=clips/ --out=data/clips --max_tokens=256
    python -m data_pipelines.build --source=film --out=data/film
    python -m data_pipelines.build --source=physics --out=data/physics --limit=2000

A build is complete or absent: it grows in OUT.partial and is renamed at the end. One that was stopped resumes when it
is started again with the same arguments. The same arguments give the same bytes, and an OUT built with them before is
left as it is. With --engine=ray the machines of a Ray cluster do the work.
"""

from __future__ import annotations

from absl import flags

from data_pipelines.building.build_flags import define_flags
from vdit.command.run import no_arguments, run_main


def main(argv: list[str]) -> None:
    """Builds what the flags say."""
    no_arguments(argv)
    from data_pipelines.building.build_args import make_args
    from data_pipelines.building.builder import build

    build(make_args(lambda name: flags.FLAGS[name].value))


if __name__ == "__main__":
    define_flags()
    run_main(main)
