"""Names of files as users write them and as they are shown: `~`, and bytes that are no UTF-8."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from vdit.errors import UserError

TEXT_FLAGS = ("prompt", "negative")
"""Flags whose values are text, in which `~` means nothing."""

WRITTEN_FLAGS = ("out", "workdir")
"""Flags that name what is made, by libraries that know names in UTF-8 only."""

_FLAG = re.compile(r"--?(?P<name>[^=]+)(?P<value>=.*)?", re.DOTALL)
_HOME = re.compile(r"(?P<kind>\s*(?:\w+:)?)(?P<path>~[^/\0]*(?:/.*)?)", re.DOTALL)


def printable(name: str) -> str:
    """A name as text: bytes that are no UTF-8, and halves of characters, are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def ffmpeg_name(path: str | os.PathLike[str]) -> str:
    """A file's name as FFmpeg takes it for nothing but a file: in "A:B.mp4" it sees a protocol."""
    return f"file:{os.path.abspath(path)}"


def read_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line with `~` and `~USER` at the start of paths replaced by the home folder.

    A shell replaces it only where a word begins, not in `--out=~/data`, `--head=a.mp4,~/b.mp4` or `--source=tfds:~/d`.

    Raises:
      UserError: if the name of what is to be made is not UTF-8.
    """
    read, before = [], ""
    for argument in arguments:
        flag = _FLAG.fullmatch(argument)
        name = flag["name"] if flag else before
        if name in WRITTEN_FLAGS and printable(argument) != argument:
            raise UserError(f"--{name} is not UTF-8 ({printable(argument)}); choose another name")
        if flag and flag["value"] and name not in TEXT_FLAGS:
            argument = argument[: -len(flag["value"])] + "=" + expand_home(flag["value"][1:])
        elif not flag and name not in TEXT_FLAGS:
            argument = expand_home(argument)
        before = name if flag and not flag["value"] else ""
        read.append(argument)
    return read


def expand_home(value: str) -> str:
    """`~` and `~USER` at the start of a path, or of each path of a list with commas, replaced by the home folder."""
    matches = [(part, _HOME.fullmatch(part)) for part in value.split(",")]
    return ",".join(found["kind"] + os.path.expanduser(found["path"]) if found else part for part, found in matches)


def expand_fields(values: Any, *names: str) -> None:
    """`expand_home` on fields of a frozen dataclass that is being made."""
    for name in names:
        object.__setattr__(values, name, expand_home(getattr(values, name)))
