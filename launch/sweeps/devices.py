"""Whether the runs of a sweep can start on the devices that a target gives them: found before anything is created."""

from __future__ import annotations

import math

from launch.sweeps.expand import Run, Sweep
from launch.sweeps.settings import Settings
from vdit.errors import UserError


def check(sweep: Sweep, target: str, settings: Settings) -> None:
    """Checks that the mesh of every run spans the devices of its target and that its rows divide among them.

    Raises:
      UserError: naming the first run that cannot start, and what mends it.
    """
    if getattr(settings, "topology", None) == "" and not getattr(settings, "gpu", ""):
        return  # the target says that it is missing
    devices = settings.devices
    if not devices:
        return  # vdit.train takes as many as divide the rows
    place = _place(target, settings)
    for run in sweep.runs:
        if run.config.task == "diffusion":
            try:
                replica, fsdp, *_ = run.config.mesh.sizes(devices)
                _check_rows(run, replica * fsdp)
            except UserError as error:
                raise UserError(f"run {run.id} ({run.label}) cannot start on {place}: {error}") from error


def _check_rows(run: Run, shards: int) -> None:
    parts, rows = shards * run.config.optimizer.accumulate, run.config.data.rows_per_step
    if rows % parts:
        parts_of = "" if parts == shards else f", in {run.config.optimizer.accumulate} parts each"
        raise UserError(
            f"{shards} devices share the rows of a step{parts_of}, and data.rows_per_step={rows} is not a multiple of "
            f"{parts}; add --config.data.rows_per_step={parts * math.ceil(rows / parts)}, or set it in the sweep file"
        )


def _place(target: str, settings: Settings) -> str:
    """The devices of a run, in words."""
    topology, slices = getattr(settings, "topology", ""), getattr(settings, "slices", 1)
    if topology:
        return topology if slices == 1 else f"{slices} slices of {topology}"
    return f"the {settings.devices} devices of a run on {target}"
