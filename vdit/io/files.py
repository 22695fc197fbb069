"""Files that are whole or absent, JSON, and the cache folder; a path may be of this machine or of a bucket."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from etils import epath

from vdit.errors import UserError

CHUNK_BYTES = 1 << 20
"""Bytes of a file that are copied or hashed at a time."""


def cache_dir() -> Path:
    """Where what can be fetched or computed again is kept: $VDIT_CACHE, else ~/.cache/vdit."""
    return Path(os.environ.get("VDIT_CACHE") or Path.home() / ".cache" / "vdit").expanduser()


def is_remote(path: str | os.PathLike[str]) -> bool:
    """Whether a path is a URL, such as gs://BUCKET/FOLDER."""
    return "://" in os.fspath(path)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new file beside `path` to write to, which replaces `path` at the end; removed on failure. On this machine only.

    Its name is its own, so two writers never mix: the last to end wins.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def whole_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new folder beside `path` to fill, renamed to `path` at the end and removed on failure; see `whole_file`."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes a file of which no reader sees half; objects in buckets appear whole anyway."""
    if is_remote(path):
        epath.Path(path).write_bytes(data)
        return
    with whole_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """As `write_bytes`, as indented JSON."""
    write_text(path, json.dumps(values, indent=1) + "\n")


def read_json(
    path: str | os.PathLike[str],
    kind: type = dict,
    keys: Collection[str] = (),
    mend: str = "restore it or start a new workdir",
) -> Any:
    """Reads a JSON file.

    Args:
      path: the file, or object of a bucket.
      kind: dict or list, what it must hold.
      keys: what that must have.
      mend: what a user can do if it is damaged.

    Raises:
      UserError: naming the file, if it is missing, damaged or holds something else.
    """
    try:
        data = epath.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; is this the workdir of a run?") from error
    return parse_json(data, path, kind, keys, mend)


def parse_json(data: bytes | str, source: object, kind: type = dict, keys: Collection[str] = (), mend: str = "") -> Any:
    """As `read_json`, from what was read of `source`."""
    try:
        values: Any = json.loads(data)
        if not issubclass(type(values), kind):
            raise ValueError(f"it holds {type(values).__name__}, not {kind.__name__}")
        if missing := [key for key in keys if key not in values]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end, or of another shape
        raise UserError(f"{source} is damaged ({error}){mend and '; '}{mend}") from error
    return values


def parse_rows(data: bytes, key: str) -> list[dict[str, Any]]:
    """The whole objects with a number `key` among lines of JSON; a line that is half written or damaged is left out."""
    rows = []
    for line in data.decode("utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError, RecursionError):
            values = json.loads(line)
            if isinstance(values, dict) and isinstance(values.get(key), int | float):
                rows.append(values)
    return rows
