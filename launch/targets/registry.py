"""The targets by name: what each can do."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from launch.sweeps.settings import TARGETS
from launch.sweeps.state import Folder
from launch.targets import gke, local, queued_resources, slurm
from vdit.config_dict import build
from vdit.errors import UserError

MODULES = {"local": local, "queued_resources": queued_resources, "gke": gke, "slurm": slurm}


def of(target: str) -> ModuleType:
    """Module of a target.

    Each has describe(sweep, run, folder, settings), start(sweep, folder, settings), synchronise(folder, settings),
    stop(folder, settings, ids) and fetch_logs(folder, settings, id).
    """
    if target not in MODULES:
        raise UserError(f"--to={target} is not one of {', '.join(MODULES)}")
    return MODULES[target]


def settings_of(folder: Folder) -> tuple[str, Any]:
    """(target, settings) with which a sweep was started last."""
    plan = folder.plan()
    return plan["target"], build(plan["settings"], TARGETS[plan["target"]])


def synchronise(folder: Folder) -> None:
    """Brings the folder up to date with where the runs write."""
    target, settings = settings_of(folder)
    of(target).synchronise(folder, settings)


def stop(folder: Folder, ids: list[str]) -> str:
    """Signals runs to save a checkpoint and stop; all of them if no ids are given. Says what was done.

    Raises:
      UserError: for an id that is not of the sweep.
    """
    known = [entry["id"] for entry in folder.plan()["runs"]]
    wrong = [run_id for run_id in ids if run_id not in known]
    if wrong:
        raise UserError(f"{folder.path} has no run {wrong[0]}; see launch.status {folder.path}")
    target, settings = settings_of(folder)
    return str(of(target).stop(folder, settings, ids or known))


def open_folder(argv: list[str], command: str) -> Folder:
    """The sweep that a command line names, brought up to date with where its runs write.

    Raises:
      UserError: if it names none.
    """
    if len(argv) < 2:
        raise UserError(f"give the folder of a sweep: python -m launch.{command} sweeps/NAME")
    folder = Folder(Path(argv[1]))
    synchronise(folder)
    return folder
