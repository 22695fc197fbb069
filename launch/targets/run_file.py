"""run.json: the command of a machine. `launch.remote` reads it there, so that no shell parses its content."""

from __future__ import annotations

import json
from collections.abc import Sequence

from launch.targets import compiler_flags


def text(arguments: Sequence[str], flag_set: str) -> str:
    """The file for a training run.

    Args:
      arguments: of vdit.train.
      flag_set: name of a set of compiler flags.
    """
    environment = compiler_flags.environment(flag_set)
    return (
        json.dumps({"module": "vdit.train", "arguments": list(arguments), "environment": environment}, indent=1) + "\n"
    )


def as_comment(shown: str, indent: int = 0) -> str:
    """Text of which a shell that reads the output of --dry_run executes nothing, whatever it holds."""
    return "\n".join(f"# {' ' * indent}{line}".rstrip() for line in shown.splitlines())
