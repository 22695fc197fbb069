"""The targets by name: what each can do. Modules are imported when they are used."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from launch.sweeps.settings import TARGETS
from launch.sweeps.state import Folder
from vdit.config_dict import build
from vdit.errors import UserError


def of(target: str) -> Any:
    """Module of a target, with the functions describe(sweep, run, folder, settings) and start(sweep, folder, settings).

    Those of clusters and clouds also have synchronise(folder, settings), stop(folder, settings, ids) and
    logs(folder, settings, id).
    """
    if target not in TARGETS:
        raise UserError(f"--to={target} is not one of {', '.join(TARGETS)}")
    return importlib.import_module(f"launch.targets.{target}")


def settings_of(folder: Folder) -> tuple[str, Any]:
    """(target, settings) with which a sweep was started last."""
    plan = folder.plan()
    return plan["target"], build(plan["settings"], TARGETS[plan["target"]])


def synchronise(folder: Folder) -> None:
    """Brings the folder up to date with where the runs write."""
    target, settings = settings_of(folder)
    if target != "local":
        of(target).synchronise(folder, settings)


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
