"""Stops a sweep or some of its runs, resumably: `python -m launch.stop sweeps/NAME [ID ...]`."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from launch.sweeps.state import Folder
from launch.targets import registry
from vdit.command import run_main
from vdit.errors import UserError
from vdit.io.lock import writer_of


def stop(folder: Folder, ids: list[str]) -> str:
    """Asks runs to save a checkpoint and stop; all of them if no ids are given. Says what was done.

    Raises:
      UserError: for an id that is not of the sweep.
    """
    known = [entry["id"] for entry in folder.plan()["runs"]]
    wrong = [run_id for run_id in ids if run_id not in known]
    if wrong:
        raise UserError(f"{folder.path} has no run {wrong[0]}; see launch.status {folder.path}")
    target, settings = registry.settings_of(folder)
    if target != "local":
        return str(registry.of(target).stop(folder, settings, ids or known))
    launcher = folder.launched_by()
    if launcher:
        here = [run_id for run_id in ids if (state := folder.state(run_id)) and state.pids == [launcher.pid]]
        if not ids or here:  # the runs of an experiment are trained by its launcher itself
            _terminate([launcher.pid])
            return f"{folder.path} is asked to stop"
    asked = []
    for run_id in ids or known:
        if launcher:
            folder.run(run_id).mkdir(parents=True, exist_ok=True)
            (folder.run(run_id) / "stop").touch()
            asked.append(run_id)
        elif folder.locked(run_id):  # its launcher is gone
            state, writer = folder.state(run_id), writer_of(folder.run(run_id))
            if _terminate({*(state.pids if state else []), *([writer.pid] if writer else [])}):
                asked.append(run_id)
    return f"asked to stop: {', '.join(asked) or 'none, as none is running'}"


def _terminate(pids: Iterable[int]) -> bool:
    """Sends SIGTERM to the processes that are there, one after another; whether some were."""
    found = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or its number is another user's by now
            os.kill(pid, signal.SIGTERM)
            found = True
    return found


def main(argv: list[str]) -> None:
    print(stop(registry.open_folder(argv, "stop"), argv[2:]))


if __name__ == "__main__":
    run_main(main)
