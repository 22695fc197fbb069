"""Stops a sweep or some of its runs, resumably: `python -m launch.stop sweeps/NAME [ID ...]`."""

from __future__ import annotations

from launch.targets import registry
from vdit.command.run import run_main


def main(argv: list[str]) -> None:
    print(registry.stop(registry.open_folder(argv, "stop"), argv[2:]))


if __name__ == "__main__":
    run_main(main)
