"""What a run writes about itself: config, environment, data set, and the check that a workdir is of the same run."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from etils import epath

from vdit.config import Config, DiffusionConfig
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.io.files import read_json, write_json
from vdit.training.record.identity import flat, identity, plain
from vdit.training.record.published import is_pipeline, pipeline_config

PACKAGES = ("vdit", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")

EXPORT = "export.json"
"""What vdit.export says of the weights in a folder."""


def check(workdir: epath.Path, config: Config, meta: Mapping[str, Any]) -> None:
    """Checks that a workdir is new or of the same run.

    Raises:
      UserError: if it holds a run of another config, or was trained on other data.
    """
    if is_export(workdir):
        raise UserError(f"{workdir} is an export; take another --workdir, and start from it with --config.init_from")
    if not any(path.name.isdigit() for path in (workdir / "checkpoints").glob("*")):
        return  # a start that failed in its first steps, for want of memory, say, has left nothing to lose
    if (workdir / "dataset.json").exists():
        check_dataset(workdir, config.data.path, meta)
        if not config.train.accept_new_data:
            _check_same_data(workdir, meta)
    if (workdir / "config.json").exists():
        # Read as a config: a run from before a field was added counts as one with the field's default.
        ours, theirs = (flat(identity(plain(each))) for each in (config, read_config(workdir)))
        names = (ours.keys() | theirs.keys()) - ({"data.weights"} if config.train.accept_new_data else set())
        differing = sorted(key for key in names if ours.get(key) != theirs.get(key))
        if differing:
            key = differing[0]
            more = f" (and {len(differing) - 1} more)" if len(differing) > 1 else ""
            raise UserError(
                f"{workdir} holds a run with {key}={theirs.get(key)}, not {ours.get(key)}{more}; "
                f"take another --workdir{_instead(workdir, key)}"
            )


def _instead(workdir: epath.Path, key: str) -> str:
    """How to continue a run in another workdir with another value of a field."""
    if key.startswith(("optimizer.", "train.")):
        return (
            f"; --config.init_from={workdir} starts it from these weights with a fresh optimiser, "
            f"--config.train.branch_from={workdir} from a checkpoint, where optimizer.cooldown begins"
        )
    return ""


def _check_same_data(workdir: epath.Path, meta: Mapping[str, Any]) -> None:
    """Raises UserError naming a data set that is another than before, by its place among those that are mixed."""
    before, now = _datasets(read_json(workdir / "dataset.json"), workdir), list(meta.get("datasets", []))
    if not before:  # the run is older than fingerprints, or has an iterator of its own
        return
    accept = "take another --workdir, or set train.accept_new_data=true to resume on the new data"
    if len(before) != len(now):
        raise UserError(f"{workdir} was trained on {len(before)} data sets, not {len(now)}; {accept}")
    for place, (ours, theirs) in enumerate(zip(now, before, strict=True), 1):
        for name in ("fingerprint", "weight"):
            if ours[name] != theirs[name]:
                raise UserError(
                    f"the data has changed: data set {place} of {len(now)}, {ours['path']}, has {name} {ours[name]}, "
                    f"{theirs[name]} ({theirs['path']}) when {workdir} was trained; {accept}"
                )


def _datasets(stored: Mapping[str, Any], workdir: epath.Path) -> list[Mapping[str, Any]]:
    found = stored.get("datasets", [])
    if not isinstance(found, list) or not all(
        isinstance(each, dict) and {"path", "weight", "fingerprint"} <= each.keys() for each in found
    ):
        raise UserError(f"{workdir / 'dataset.json'} is damaged (datasets={found}); restore it or start a new workdir")
    return found


def diffusion_of(workdir: epath.Path) -> DiffusionConfig | None:
    """That of the run in a workdir, with the channel means and deviation of its data; None if there is no run."""
    return read_config(workdir).diffusion if (workdir / "config.json").exists() else None


def check_dataset(workdir: epath.Path, path: str, meta: Mapping[str, Any]) -> None:
    """Checks that the data set at `path`, which `meta` describes, is of the kind that the run was trained on.

    Raises:
      UserError: naming the difference.
    """
    stored, plainly = read_json(workdir / "dataset.json"), json.loads(json.dumps(dict(meta)))
    for key in ("patch", "channels", "autoencoder", "text_encoder"):
        if stored.get(key) != plainly.get(key):
            raise UserError(f"{path} has {key}={meta.get(key)}, but {workdir} was trained with {stored.get(key)}")


def read_meta(folder: epath.Path) -> dict[str, Any]:
    """The description of the data that the run or the weights in a folder were trained on.

    Raises:
      UserError: if it is missing, damaged or not such a description.
    """
    path = folder / "dataset.json"
    meta = read_json(path, keys=("patch", "channels", "autoencoder", "text_encoder"))
    patch, named = meta["patch"], (meta["autoencoder"], meta["text_encoder"])
    sizes = [*(patch if isinstance(patch, list) else []), meta["channels"]]
    good = len(sizes) == 4 and all(isinstance(size, int) and size > 0 for size in sizes)
    if not good or not all(isinstance(values, dict) and isinstance(values.get("name"), str) for values in named):
        raise UserError(f"{path} is damaged (it does not describe a data set); restore it or start a new workdir")
    return meta


def is_export(folder: epath.Path) -> bool:
    """Whether vdit.export wrote the folder."""
    return (folder / EXPORT).exists()


def claim(workdir: epath.Path, config: Config, meta: Mapping[str, Any]) -> None:
    """Writes config.json, dataset.json and environment.json."""
    import jax

    if jax.process_index() == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        write_json(workdir / "config.json", plain(config))
        write_json(workdir / "dataset.json", dict(meta))
        write_json(workdir / "environment.json", environment())


def read_config(workdir: epath.PathLike) -> Config:
    """The config of the run in a workdir, or of a published pipeline in its folder.

    Raises:
      UserError: if there is none.
    """
    if is_pipeline(epath.Path(workdir)):
        return pipeline_config(epath.Path(workdir))
    path = epath.Path(workdir) / "config.json"
    values = read_json(path)
    try:
        return build(values, Config)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def environment() -> dict[str, Any]:
    """Versions, commit, devices and command of this process."""
    import jax  # here, as launchers read and write files of workdirs without it

    from vdit.parallel.peak import peak_rate

    peak, source = peak_rate()
    return {
        "command": sys.argv,
        "git": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "devices": [f"{device.platform}:{device.device_kind}" for device in jax.devices()],
        "peak_tflops": round(peak / 1e12, 4),
        "peak_source": source,
        "processes": jax.process_count(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def commit(folder: Path = Path(__file__).parent) -> dict[str, Any] | None:
    """The commit of the source and whether files differ from it; None where it is no clone, or git is not there."""
    try:
        head, changed = (
            subprocess.run(["git", "-C", folder, *words], capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": head, "changed": bool(changed)}
