"""Runs on the machine that trains: `python -m launch.remote RUN.json` becomes the command that the file describes.

The file is {"module": ..., "arguments": [...], "environment": {...}}. Names, values and prompts of a sweep reach the
trainer in it, as data that no shell ever reads. RUN.json may be in a bucket.
"""

from __future__ import annotations

import os
import sys

from vdit.command.run import run_main
from vdit.errors import UserError
from vdit.io.files import read_json


def joined(environment: dict[str, str]) -> dict[str, str]:
    """The environment with JAX_PROCESS_ID, where the cluster numbers slices and the hosts of a slice instead."""
    names = ("VDIT_SLICE", "VDIT_HOST", "VDIT_HOSTS_OF_SLICE")
    if not all(environment.get(name) for name in names):
        return environment
    number, host, hosts = (int(environment[name]) for name in names)
    return environment | {"JAX_PROCESS_ID": str(number * hosts + host)}


def main(argv: list[str]) -> None:
    if len(argv) != 2:
        raise UserError("give one file: python -m launch.remote RUN.json")
    try:
        values = read_json(argv[1], keys=("module", "arguments", "environment"), mend="launch the run again")
        command = [sys.executable, "-m", values["module"], *values["arguments"]]
        environment = joined({**os.environ, **values["environment"]})
    except (OSError, TypeError, ValueError) as error:
        raise UserError(f"{argv[1]} is not the file of a run ({type(error).__name__}: {error})") from error
    sys.stdout.flush()
    os.execve(sys.executable, command, environment)  # so that SIGTERM reaches the trainer itself


if __name__ == "__main__":
    run_main(main)
