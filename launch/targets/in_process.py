"""Runs in this process, one after another: short runs that share compiled programs and their folder's state."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

from launch.sweeps.expand import Run
from launch.sweeps.state import Folder, State
from vdit.command.exit_status import PREEMPTED
from vdit.command.stopping import Stopped
from vdit.errors import UserError
from vdit.io.files import read_json, write_json


def result_of(run: Run, folder: Folder) -> dict[str, Any]:
    """The content of a run's result.json; the run is trained, from its newest checkpoint, if it is not finished."""
    path = folder.run(run.id) / "result.json"
    if not path.exists():
        from vdit.scaling.runs import result_row

        started = time.time()
        result = train(run, folder)
        account = {"started": time.strftime("%FT%TZ", time.gmtime(started)), "seconds": time.time() - started}
        write_json(path, {**result_row(run.config, result), **account})
    return read_json(path)


def train(run: Run, folder: Folder) -> dict[str, Any]:
    """Trains a run to its last step and gives its totals; its state says so meanwhile.

    Raises:
      UserError: if it is not valid, or another process trains it.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    from vdit.train import train as train_run

    with _begun(run, folder):
        return train_run(run.config, folder.run(run.id))


@contextlib.contextmanager
def _begun(run: Run, folder: Folder) -> Iterator[None]:
    """Writes what becomes of the run."""
    lock = folder.lock(run.id)
    if lock is None:
        raise UserError(f"{folder.run(run.id)} is being trained by another process; see launch.status {folder.path}")
    try:
        state = folder.state(run.id) or State()
        state.end("waiting", "lost")  # if the last process was killed
        state.begin()
        state.pids = [os.getpid()]
        folder.write_state(run.id, state)
        yield
    except Stopped:
        _ended(run, folder, "stopped", PREEMPTED)
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        _ended(run, folder, "failed", getattr(error, "status", 1), reason)
        raise
    else:
        _ended(run, folder, "finished", 0)
    finally:
        os.close(lock)


def _ended(run: Run, folder: Folder, name: str, status: int, reason: str = "") -> None:
    state = folder.state(run.id) or State()
    state.end(name, status, reason)
    folder.write_state(run.id, state)
