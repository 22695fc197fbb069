"""Names of files as users write them and as they are shown: `~`, and bytes that are no UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

TEXT_FLAGS = ("prompt", "negative")
"""Flags whose values are text, in which `~` means nothing."""

_FLAG = re.compile(r"--?(?P<name>[^=]+)(?P<value>=.*)?", re.DOTALL)
_HOME = re.compile(r"(?P<kind>(?:\w+:)?)(?P<path>~[^/]*(?:/.*)?)", re.DOTALL)


def printable(name: str) -> str:
    """A name as text: bytes that are no UTF-8, and halves of characters, are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def expand_home(arguments: Sequence[str]) -> list[str]:
    """A command line with `~` and `~USER` at the start of paths replaced by the home folder.

    A shell replaces it only where a word begins, not in `--out=~/data`, `--head=a.mp4,~/b.mp4` or `--source=tfds:~/d`.
    """
    expanded, before = [], ""
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        name = flag["name"] if flag else before
        if flag and flag["value"] and name not in TEXT_FLAGS:
            argument = argument[: -len(flag["value"])] + "=" + _expand(flag["value"][1:])
        elif not flag and name not in TEXT_FLAGS:
            argument = _expand(argument)
        before = name if flag and not flag["value"] else ""
        expanded.append(argument)
    return expanded


def _expand(value: str) -> str:
    matches = [(part, _HOME.fullmatch(part)) for part in value.split(",")]
    return ",".join(found["kind"] + os.path.expanduser(found["path"]) if found else part for part, found in matches)
