"""One writer of a folder: a second process is refused in one line, as long as the first one lives.

The writer of FOLDER keeps `FOLDER/.writer.json`: its host, process id, start time of the process, and a count that it
raises every few seconds. Whether it is alive is determined in one of two ways:

* on the same machine, from the process itself: one that is gone, is a zombie, or has another start time (process ids
  are reused) is dead; one that is stopped (SIGSTOP, Ctrl-Z) is alive.
* on another machine (of a network file system, or with a bucket), from the count: a writer that does not raise it for
  `SILENT` counts is taken for dead. It may only have been frozen, so a writer asks before everything it writes whether
  it still is the one (`Lock.check`), and ends if not.

On a file system the file is changed under a system lock (flock), so of two processes that find a dead writer one wins.
Buckets have no such thing: a process writes its name, waits `SETTLE` seconds and reads it again. Of several that come
within that time the last wins; further apart than that, the second sees the first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import platform
import shlex
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vdit.errors import UserError
from vdit.io.files import is_remote
from vdit.io.storage import remote
from vdit.io.storage.failures import mend_of

NAME = ".writer.json"
RENEW, RENEW_REMOTE = 5.0, 30.0
"""Seconds between two counts of a writer."""
SILENT = 4
"""Counts that must fail to come before a writer on another machine is taken for gone."""
SETTLE = 2.0
PATIENCE = 10.0
"""Seconds in which a lock of the system, which is held for moments, must be had."""

_held: dict[str, Lock] = {}


@dataclasses.dataclass(frozen=True)
class Writer:
    """Who writes a folder.

    Attributes:
      token: distinct for every writer there ever was.
      host, pid: its machine's name and its number there.
      machine: names the boot and the name space in which `pid` means something.
      born: start time of the process, in ticks since the boot; clocks may be set without changing it.
      since: Unix time at which it became the writer.
      command: what was started.
      folder: which one it writes, by its path on its machine; a copy of it has no writer.
      count: raised every few seconds.
    """

    token: str
    host: str
    pid: int
    machine: str
    born: str
    since: float
    command: str
    folder: str
    count: int = 0

    def __str__(self) -> str:
        since = time.strftime("%F %T", time.localtime(self.since))
        return f"process {self.pid} on {self.host} since {since} ({self.command})"


class Busy(UserError):
    """Another process, `writer`, writes the folder."""

    def __init__(self, message: str, writer: Writer) -> None:
        super().__init__(message)
        self.writer = writer


class TakenOver(UserError):
    """Another process has become the writer: nothing more may be written."""


class Lock:
    """This process's hold on a folder; made by `one_writer`."""

    def __init__(self, folder: str, cell: _File | _Object, writer: Writer) -> None:
        self._folder, self._cell, self._writer = folder, cell, writer
        self._lost, self._over = False, threading.Event()
        self._changing = threading.Lock()
        self._thread = threading.Thread(target=self._renew, name="writer", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """To be called before anything is written.

        Raises:
          TakenOver: if another process has become the writer.
        """
        now = self._cell.read()
        if self._lost or now is None or now.token != self._writer.token:
            self._lost = True
            taken = f"is now written by {now}" if now else f"has lost its {NAME}, which says who writes it"
            raise TakenOver(f"{self._folder} {taken}; this process, {os.getpid()}, writes nothing more")

    def _renew(self) -> None:
        while not self._over.wait(self._cell.renew):
            with self._changing, contextlib.suppress(Exception):  # of storage: it is tried again at the next count
                if self._over.is_set():
                    return
                new = dataclasses.replace(self._writer, count=self._writer.count + 1)
                if self._cell.replace(self._writer, new):
                    self._writer = new
                else:
                    self._lost = True
                    return

    def release(self) -> None:
        self._over.set()
        with self._changing, contextlib.suppress(Exception):  # a file that stays is found to be of a dead process
            self._cell.replace(self._writer, None)


@contextlib.contextmanager
def one_writer(folder: Any) -> Iterator[Lock]:
    """Makes this process the writer of a folder, which is made if need be, and removed at the end if nothing is in it.

    Within another one for the same folder it is that one.

    Raises:
      Busy: if another process writes it, naming that.
      UserError: if it cannot be written.
    """
    text, name = os.fspath(folder), _name(folder)
    if name in _held:
        yield _held[name]
        return
    with _made(name) if not is_remote(name) else contextlib.nullcontext():
        lock = Lock(text, *_take(name, text))
        _held[name] = lock
        try:
            yield lock
        finally:
            del _held[name]
            lock.release()


def check_writer(folder: Any) -> None:
    """To be called before something is written to a folder: `Lock.check`, if this process became its writer.

    Raises:
      TakenOver: if it is so no longer.
    """
    if lock := _held.get(_name(folder)):
        lock.check()


def writer_of(folder: Any) -> Writer | None:
    """Who writes a folder: a process of this machine that lives, or whoever is named there from another one."""
    found = _cell(os.fspath(folder)).read()
    return found if found and (found.machine != _machine() or _state(found, _name(folder))) else None


def _name(folder: Any) -> str:
    text = os.fspath(folder)
    return text.rstrip("/") if is_remote(text) else os.path.realpath(text)


def _take(name: str, text: str) -> tuple[_File | _Object, Writer]:
    """Becomes the writer, if there is none that lives."""
    cell = _cell(name)
    mine = Writer(
        uuid.uuid4().hex,
        platform.node(),
        os.getpid(),
        _machine(),
        _process(os.getpid())[1],
        time.time(),
        " ".join(shlex.join(sys.orig_argv[1:]).split())[:120],
        name,
    )
    try:
        while True:
            found = cell.read()
            if found:
                _require_gone(found, cell, name, text)
            if cell.replace(found, mine):
                return cell, mine
    except OSError as error:
        raise UserError(
            f"{text} cannot be written ({error.strerror or error}); {mend_of(error) or 'name another place'}"
        ) from error


def _require_gone(writer: Writer, cell: _File | _Object, name: str, text: str) -> None:
    """Raises Busy if the writer lives."""
    if writer.machine == _machine():
        state = _state(writer, name)
        if state == "T":
            mend = f"it is stopped: `kill -CONT {writer.pid}` lets it go on, `kill -KILL {writer.pid}` ends it"
            raise Busy(f"{text} is written by {writer}; {mend}", writer)
        if state:
            raise Busy(f"{text} is written by {writer}; wait for it, or stop it with `kill {writer.pid}`", writer)
        return
    seconds = SILENT * cell.renew
    print(
        f"{text} was written by {writer}; looking for {seconds:.0f} s whether it still is", file=sys.stderr, flush=True
    )
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(cell.renew / 5)
        if (now := cell.read()) != writer:
            if now is None:
                return
            raise Busy(f"{text} is written by {now}; wait for it, or stop it there", now)


def _machine() -> str:
    """What numbers of processes mean something in: one boot of one machine, and one container of it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    names = os.readlink("/proc/self/ns/pid") if os.path.exists("/proc/self/ns/pid") else ""
    return f"{boot.read_text().strip() if boot.exists() else platform.node()} {names}".strip()


def _process(pid: int) -> tuple[str, str]:
    """(state, start) of a process of this machine, in the letters and ticks of Linux; ("", "") if there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return stat[0], stat[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return "", ""
    try:  # a system without /proc: that some process has this number is all there is to know
        os.kill(pid, 0)
        return "R", ""
    except ProcessLookupError:
        return "", ""
    except PermissionError:
        return "R", ""


def _state(writer: Writer, name: str) -> str:
    """State of the writer of a folder, a process of this machine: "" if it is gone, "T" if it is stopped."""
    state, born = _process(writer.pid)
    return "" if born != writer.born or state in ("Z", "X") or writer.folder != name else state


@contextlib.contextmanager
def _made(folder: str) -> Iterator[None]:
    """A folder that exists, and those above it; what was made for it goes if it stays empty."""
    made = [path for path in (Path(folder), *Path(folder).parents) if not path.exists()]
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder} cannot be made ({error.strerror or error}); {mend_of(error) or 'name another place'}"
        ) from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def _parse(data: bytes) -> Writer | None:
    try:
        return Writer(**json.loads(data))
    except (ValueError, TypeError):  # nothing, or what a full disk has left
        return None


def _cell(folder: str) -> _File | _Object:
    return _Object(f"{folder.rstrip('/')}/{NAME}") if is_remote(folder) else _File(f"{folder}/{NAME}")


class _File:
    """A writer's name in a file, which is compared and replaced in one go."""

    renew = RENEW

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> Writer | None:
        with self._open(os.O_RDONLY, fcntl.LOCK_SH) as file:
            return None if file is None else _parse(os.read(file, 1 << 16))

    def replace(self, old: Writer | None, new: Writer | None) -> bool:
        """Writes `new` (None removes the file) if `old` is there; whether it was."""
        with self._open(os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as file:
            assert file is not None
            if _parse(os.read(file, 1 << 16)) != old:
                return False
            if new is None:
                os.unlink(self._path)
            else:
                data = json.dumps(dataclasses.asdict(new)).encode()
                os.pwrite(file, data, 0)
                os.ftruncate(file, len(data))
            return True

    @contextlib.contextmanager
    def _open(self, flags: int, kind: int) -> Iterator[int | None]:
        """The file under a lock of the system; None if it is to be read and is not there."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                file = os.open(self._path, flags | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                if flags & os.O_CREAT:
                    raise
                yield None
                return
            try:
                if _flock(file, kind) and _is_at(file, self._path):
                    yield file
                    return
            finally:
                os.close(file)
            if time.monotonic() > until:
                raise UserError(f"{self._path} is locked by a process that does not move; end it, and try again")
            time.sleep(0.01)


def _flock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system that has none
            return True
        raise


def _is_at(file: int, path: str) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


class _Object:
    """A writer's name in a bucket."""

    renew = RENEW_REMOTE

    def __init__(self, url: str) -> None:
        self._url = url

    def read(self) -> Writer | None:
        try:
            return _parse(remote.read_bytes(self._url))
        except FileNotFoundError:
            return None

    def replace(self, old: Writer | None, new: Writer | None) -> bool:
        """Writes `new` (None removes the object) if `old` is there; whether it was, and `new` has stayed."""
        if self.read() != old:
            return False
        if new is None:
            remote.remove(self._url)
            return True
        remote.write_bytes(self._url, json.dumps(dataclasses.asdict(new)).encode())
        if old is None or old.token != new.token:
            time.sleep(SETTLE)
            return self.read() == new
        return True
