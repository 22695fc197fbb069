"""Stops a sweep or some of its runs, resumably: `python -m launch.stop sweeps/NAME [ID ...]`."""

from __future__ import annotations

import os
import signal

from launch.sweeps.state import Folder
from launch.targets import registry
from vdit.command import run_main
from vdit.errors import UserError


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
    if folder.locked("launcher"):
        launcher = int((folder.path / "locks" / "launcher.pid").read_text())
        here = [run_id for run_id in ids if (state := folder.state(run_id)) and state.pids == [launcher]]
        if not ids or here:  # the runs of an experiment are trained by its launcher itself
            os.kill(launcher, signal.SIGTERM)
            return f"{folder.path} is asked to stop"
    signalled = []
    for run_id in ids or known:
        if folder.locked("launcher"):
            folder.run(run_id).mkdir(parents=True, exist_ok=True)
            (folder.run(run_id) / "stop").touch()
            signalled.append(run_id)
        elif folder.locked(run_id) and (state := folder.state(run_id)):  # its launcher is gone
            for pid in state.pids:
                os.kill(pid, signal.SIGTERM)
            signalled.append(run_id)
    return f"asked to stop: {', '.join(signalled) or 'none, as none is running'}"


def main(argv: list[str]) -> None:
    print(stop(registry.open_folder(argv, "stop"), argv[2:]))


if __name__ == "__main__":
    run_main(main)
