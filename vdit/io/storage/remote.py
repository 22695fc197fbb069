"""Files that may be on this machine or behind a URL (gs://, s3:// and whatever else fsspec knows).

Where TensorFlow-free access to a bucket needs a package (gcsfs for gs://, s3fs for s3://), its absence is a UserError.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

from vdit.errors import UserError
from vdit.io import files

ATTEMPTS, FIRST_WAIT = 4, 0.5
"""A transfer is tried so often; the wait doubles."""


def _locate(path: Any) -> tuple[Any, str]:
    """File system and place of a path. Not left to fsspec, for which "::" in a name is a chain and "~" a home."""
    text = _url(os.fspath(path))
    scheme, mark, _ = text.partition("://")
    if not mark:
        return fsspec.filesystem("file"), os.path.abspath(text)
    try:
        kind = fsspec.get_filesystem_class(scheme)
        system = fsspec.filesystem(scheme, **kind._get_kwargs_from_urls(text))
        return system, kind._strip_protocol(text.replace("::", "\0")).replace("\0", "::")
    except (ImportError, ValueError) as error:
        raise UserError(f"{text} cannot be opened: {error}") from error


def _url(text: str) -> str:
    """Undoes what pathlib does to the two slashes of a URL."""
    if "://" in text:
        return text
    scheme, mark, rest = text.partition(":/")
    return f"{scheme}://{rest.lstrip('/')}" if mark and len(scheme) > 1 and "/" not in scheme else text


def open_file(path: Any, mode: str) -> Any:
    """Opens a file; one of this machine as Python does, which takes a third of fsspec's time."""
    if not files.is_remote(text := _url(os.fspath(path))):
        return open(text, mode)
    system, place = _locate(text)
    return system.open(place, mode)


def read_bytes(path: Any) -> bytes:
    """The bytes of a file."""
    with open_file(path, "rb") as file:
        return file.read()


def write_bytes(path: Any, data: bytes) -> None:
    """Writes a file, whole or not at all; makes the folders on the way."""
    system, place = _locate(path)
    system.makedirs(os.path.dirname(place), exist_ok=True)
    if files.is_remote(path):
        system.pipe_file(place, data)
        return
    files.write_bytes(place, data)


def exists(path: Any) -> bool:
    system, place = _locate(path)
    return bool(system.exists(place))


def is_file(path: Any) -> bool:
    system, place = _locate(path)
    return bool(system.isfile(place))


def size(path: Any) -> int:
    """Bytes of a file.

    Raises:
      FileNotFoundError: if there is none.
    """
    system, place = _locate(path)
    return int(system.info(place)["size"])


def list_names(path: Any) -> list[str]:
    """Names of what lies in a folder; empty if it does not exist."""
    system, place = _locate(path)
    try:
        return sorted(name.rstrip("/").rsplit("/", 1)[-1] for name in system.ls(place, detail=False, refresh=True))
    except FileNotFoundError:
        return []


def walk(path: Any) -> Iterator[tuple[str, int]]:
    """(path below the folder, bytes) of all files in a tree, in no order of use."""
    system, place = _locate(path)
    root = place.rstrip("/") + "/"
    for name, info in system.find(place, detail=True).items():
        yield name[len(root) :], int(info["size"] or 0)


def remove(path: Any) -> None:
    """Removes a file or a tree, if it is there."""
    if not files.is_remote(path):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            return os.unlink(path)
        return shutil.rmtree(path, ignore_errors=True)
    system, place = _locate(path)
    with contextlib.suppress(FileNotFoundError):
        system.rm(place, recursive=True)


def fetch(url: str, target: Path) -> Path:
    """Copies a remote file to this machine, whole or not at all.

    Raises:
      UserError: if it cannot be had after several tries.
    """
    system, place = _locate(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(ATTEMPTS):
        try:
            with files.whole_file(target) as partial:
                system.get_file(place, str(partial))
            return target
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise UserError(f"{url} cannot be read ({error}); start again to resume from here") from error
            time.sleep(FIRST_WAIT * 2**attempt)
    raise AssertionError


def send(path: Path, url: str) -> None:
    """Copies a file of this machine to a URL.

    Raises:
      UserError: if it cannot be written after several tries.
    """
    system, place = _locate(url)
    for attempt in range(ATTEMPTS):
        try:
            system.makedirs(os.path.dirname(place), exist_ok=True)
            system.put_file(str(path), place)
            return
        except OSError as error:
            if attempt == ATTEMPTS - 1:
                raise UserError(f"{url} cannot be written ({error}); start again to resume from here") from error
            time.sleep(FIRST_WAIT * 2**attempt)


def local_name(url: str) -> str:
    """A file name of this machine that no other URL has, with the same ending."""
    return hashlib.sha256(url.encode()).hexdigest()[:24] + os.path.splitext(url)[1]
