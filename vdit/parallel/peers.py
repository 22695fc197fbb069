"""Signs of life of the processes of one run: none waits for ever for another that is gone or hangs.

Each process writes workdir/processes/INDEX.json every few seconds, from a thread, and reads those of the others. It
ends with status `LOST_PEER` and a line that names the process and what it was last doing

* when another sends no heartbeat for VDIT_SILENCE_SECONDS (60; 300 where the workdir is in a bucket), as it was
  killed, or its machine is gone or stopped; or when it says that it has failed;
* when this process's own work stands still for VDIT_STALL_SECONDS (3600): some process hangs, though its thread lives.

A restart then resumes from the last checkpoint. Ages are of this machine's clock, so clocks may differ.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from types import TracebackType
from typing import Any

import jax
from etils import epath

from vdit.command.exit_status import LOST_PEER
from vdit.errors import UserError
from vdit.io.files import is_remote, read_json, write_json
from vdit.parallel.preemption import Preempted

FOLDER = "processes"

_running: Peers | None = None


def doing(what: str, step: int) -> None:
    """Says what this process is about to do, and after how many steps; costs nothing where it is alone."""
    if _running:
        _running.moved(what, step)


def alive() -> None:
    """Says that this process makes progress, as after each batch of an evaluation."""
    if _running:
        _running.progressed()


def announce(workdir: epath.PathLike, index: int) -> None:
    """Says that process `index` has been started, before it has met the others."""
    folder = epath.Path(workdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{index}.json", {**_who(), "doing": "starting", "step": 0, "beat": 0})


def missing(workdir: epath.PathLike, count: int, since: float) -> str:
    """Which of `count` processes have not been started since a Unix time, as text."""
    read = {i: _read(epath.Path(workdir) / FOLDER / f"{i}.json") for i in range(count)}
    gone = [str(i) for i, values in read.items() if values.get("time", 0) < since]
    return f"no sign of process {', '.join(gone)}" if gone else "all of them were started"


class Peers:
    """Watches the other processes of this run, and is watched by them; does nothing where there are none."""

    def __init__(self, workdir: epath.PathLike):
        self._index, self._count = jax.process_index(), jax.process_count()
        self._folder = epath.Path(workdir) / FOLDER
        remote = is_remote(workdir)
        self._every = 30.0 if remote else 1.0
        self._silence = float(os.environ.get("VDIT_SILENCE_SECONDS") or (300 if remote else 60))
        self._stall = float(os.environ.get("VDIT_STALL_SECONDS") or 3600)
        self._mine: dict[str, Any] = {"doing": "starting", "step": 0, "beat": 0}
        self._moved = time.monotonic()
        self._seen: dict[int, tuple[Any, float]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def moved(self, what: str, step: int) -> None:
        """See `doing`."""
        self._mine |= {"doing": what, "step": step}
        self.progressed()

    def progressed(self) -> None:
        """See `alive`."""
        self._moved = time.monotonic()

    def _write(self) -> None:
        self._mine["beat"] += 1
        write_json(self._folder / f"{self._index}.json", {**_who(), **self._mine})

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self._check()

    def _check(self) -> None:
        """Sends a heartbeat and looks for those of the others; ends the process where one is missed."""
        try:
            self._write()
        except Exception as error:  # clients of buckets raise their own
            print(f"warning: the heartbeat could not be written ({error})", file=sys.stderr, flush=True)
        peers = {i: _read(self._folder / f"{i}.json") for i in range(self._count) if i != self._index}
        now = time.monotonic()
        for i, values in peers.items():
            sign = values.get("pid"), values.get("beat")
            if self._seen.get(i, (None,))[0] != sign:
                self._seen[i] = sign, now
            elif values.get("doing") != "finished" and now - self._seen[i][1] > self._silence:
                _end(f"{_name(i, values)} sent no heartbeat for {now - self._seen[i][1]:.0f} s")
            if str(values.get("doing")).startswith("failed") and now - self._moved > 2 * self._every:
                _end(_name(i, values))
        if now - self._moved > self._stall:
            _end(f"nothing moved for {now - self._moved:.0f} s: {self._behind(peers)}")

    def _behind(self, peers: dict[int, dict[str, Any]]) -> str:
        """Names the processes that the others wait for: those that have taken the fewest steps, or are not in one."""
        everyone = {**peers, self._index: {**_who(), **self._mine}}
        least = min(values.get("step", 0) for values in everyone.values())
        last = {i: values for i, values in everyone.items() if values.get("step", 0) == least}
        elsewhere = {i: values for i, values in last.items() if values.get("doing") != "in a step"} or last
        return ", ".join(_name(i, values) for i, values in elsewhere.items())

    def __enter__(self) -> Peers:
        global _running
        if self._count > 1:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._write()
            self._thread.start()
            _running = self
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Tells the others how it ended. An error that another process may have caused waits until that is known."""
        global _running
        if self._count == 1:
            return
        _running = None
        if isinstance(error, Exception) and not isinstance(error, (UserError, Preempted)):
            reason = " ".join(str(error).split())[:200]
            print(f"error: {reason}; is another process gone?", file=sys.stderr, flush=True)
            self._moved = time.monotonic()
            time.sleep(self._silence + 3 * self._every)  # the thread ends this process if one is
        self._over.set()
        self._thread.join()
        ended = "finished" if error is None or isinstance(error, (Preempted, SystemExit)) else f"failed: {error}"
        self._mine["doing"] = " ".join(ended.split())[:200]
        self._write()


def _who() -> dict[str, Any]:
    return {"time": time.time(), "host": platform.node(), "pid": os.getpid()}


def _name(index: int, values: dict[str, Any]) -> str:
    where = f" ({values['host']}, pid {values['pid']})" if "pid" in values else ""
    return f"process {index}{where}, last {values.get('doing', 'not seen')} after step {values.get('step', 0)},"


def _end(message: str) -> None:
    print(
        f"error: {message.rstrip(',')}; this process ends, and the same command resumes from the last checkpoint",
        file=sys.stderr,
        flush=True,
    )
    os._exit(LOST_PEER)


def _read(path: epath.Path) -> dict[str, Any]:
    try:
        return read_json(path)
    except Exception:  # clients of buckets raise their own
        return {}
