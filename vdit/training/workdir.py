"""What a run writes about itself: config, environment, data set, and the check that a workdir is of the same run."""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib import metadata
from typing import Any

import jax
from etils import epath

from vdit.config import Config, UserError, to_dict

PACKAGES = ("vdit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

NOT_IDENTITY = {
    "mesh": None,
    "data": {"path"},
    "train": {"log_every", "checkpoint_every", "evaluate_every", "keep", "keep_steps", "profile"},
}
"""Fields that change where or how often, not what is computed: a run may go on with other values of them."""


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The part of a config dictionary that must not change within a workdir."""
    out: dict[str, Any] = {}
    for name, value in values.items():
        drop = NOT_IDENTITY.get(name, set())
        if drop is not None:
            out[name] = {k: v for k, v in value.items() if k not in drop} if isinstance(value, dict) else value
    if not values["optimizer"]["cooldown"]:
        out["train"].pop("steps")  # a constant-rate run may be made longer
    return out


def claim(workdir: epath.Path, config: Config, meta: dict[str, Any]) -> None:
    """Writes config.json, environment.json and dataset.json, or checks that the workdir is of the same run.

    Raises:
      UserError: if the workdir holds a run of another config, or was trained on another data set.
    """
    values = json.loads(json.dumps(to_dict(config)))
    path = workdir / "config.json"
    if path.exists():
        ours, theirs = _flat(identity(values)), _flat(identity(json.loads(path.read_text())))
        differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        if differing:
            key = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise UserError(
                f"{workdir} holds a run with {key}={theirs.get(key)}, not {ours.get(key)}{more}; take another --workdir"
            )
    stored = read_json(workdir / "dataset.json") if (workdir / "dataset.json").exists() else None
    for key in ("patch", "channels", "autoencoder", "text_encoder"):
        if stored and stored[key] != meta[key]:
            raise UserError(f"{config.data.path} has {key}={meta[key]}, but {workdir} was trained with {stored[key]}")
    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, values)
        write_json(workdir / "dataset.json", meta)
        write_json(workdir / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Versions, devices and command of this process."""
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "processes": jax.process_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def write_json(path: epath.Path, values: Any) -> None:
    """Writes through a temporary file, so that a reader never sees half of it."""
    path = epath.Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(values, indent=1) + "\n")
    partial.replace(path)


def read_json(path: epath.PathLike) -> Any:
    """Reads a JSON file.

    Raises:
      UserError: if it is missing or damaged.
    """
    try:
        return json.loads(epath.Path(path).read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; is this the workdir of a run?") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is damaged ({error}); restore it or start a new workdir") from error


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(values, dict):
        return {prefix: values}
    out: dict[str, Any] = {}
    for name, value in values.items():
        out |= _flat(value, f"{prefix}.{name}" if prefix else name)
    return out
