"""Folders of weights that vdit.export writes: safetensors, with the config and the data set's description."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from safetensors.numpy import save_file

from vdit import __version__, flops
from vdit.config import Config
from vdit.data import interface_of
from vdit.errors import UserError
from vdit.io.files import read_json, whole_folder, write_json
from vdit.models.adapters import add_all
from vdit.models.lora_files import read_lora, write_lora
from vdit.parallel.mesh import make_mesh, process_allgather, use_mesh
from vdit.training.initial import load_params, named
from vdit.training.record.workdir import EXPORT, is_export, plain
from vdit.training.recovery.checkpoint import Position, position_of
from vdit.training.run import Run
from vdit.training.step import TrainState, abstract_state

FILE_BYTES = 5_000_000_000
"""Weights of more than this are spread over several files, as is usual."""


def write_weights(run: Run, out: Path, raw: bool = False, merge: bool = False, half: bool = False) -> None:
    """Writes a run's parameters: their moving average, or with `raw` themselves; with `half` in float16.

    Of a run with config.lora these are adapters (see `lora_files`), or with `merge` the weights with them added.

    Raises:
      UserError: if `out` exists, or cannot be written; if there is nothing to merge.
    """
    if out.exists():
        raise UserError(f"--out={out} exists; give a new folder")
    if merge and not run.config.lora:
        raise UserError(f"--merge: {run.workdir} has no adapters, its weights are whole; leave it out")
    params, lora = run.state.params if raw else run.state.ema, run.config.lora
    if merge:
        params, lora = run.without_adapters(params)[1], None
        run = dataclasses.replace(run, config=dataclasses.replace(run.config, lora=None))
    leaves = named(params)
    files = {} if lora else _files({name: leaf.nbytes for name, leaf in leaves.items()})
    first = jax.process_index() == 0
    try:
        with whole_folder(out) if first else contextlib.nullcontext(out) as partial:
            if lora:
                arrays = {name: process_allgather(leaf) for name, leaf in leaves.items()}
                if first:
                    write_lora(partial, _pairs(arrays), lora, run.config.model)
            for file, names in files.items():
                tensors = {name: _stored(process_allgather(leaves[name]), half) for name in names}
                if first:
                    save_file(tensors, partial / file, {"format": "vdit"})
            if first:
                _describe(run, partial, files, leaves, raw)
    except OSError as error:
        raise UserError(f"cannot write {out} ({error}); make room or choose another --out") from error


def _pairs(arrays: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Matrix of a block -> (A, B), from "blocks.MATRIX.a" and "blocks.MATRIX.b"."""
    names = dict.fromkeys(name.split(".")[1] for name in arrays)
    return {name: (arrays[f"blocks.{name}.a"], arrays[f"blocks.{name}.b"]) for name in names}


def _stored(array: np.ndarray, half: bool) -> np.ndarray:
    return np.ascontiguousarray(array, np.float16 if half else None)


def _files(sizes: dict[str, int]) -> dict[str, list[str]]:
    """Names of the tensors of each file."""
    groups: list[list[str]] = [[]]
    room = FILE_BYTES
    for name, size in sizes.items():
        if size > room and groups[-1]:
            groups.append([])
            room = FILE_BYTES
        groups[-1].append(name)
        room -= size
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {f"model-{i + 1:05d}-of-{len(groups):05d}.safetensors": names for i, names in enumerate(groups)}


def _describe(run: Run, folder: Path, files: dict[str, list[str]], leaves: dict[str, Any], raw: bool) -> None:
    if len(files) > 1:
        index = {"weight_map": {name: file for file, names in files.items() for name in names}}
        write_json(epath.Path(folder / "model.safetensors.index.json"), index)
    write_json(epath.Path(folder / "config.json"), plain(run.config))
    write_json(epath.Path(folder / "dataset.json"), run.meta)
    about = {
        "vdit": __version__,
        "weights": "params" if raw else "ema",
        "step": run.position.step,
        "tensors": len(leaves),
        "parameters": sum(math.prod(leaf.shape) for leaf in leaves.values()),
        "position": dataclasses.asdict(run.position),
    }
    write_json(epath.Path(folder / EXPORT), about)


def open_weights(config: Config, folder: epath.Path, meta: dict[str, Any]) -> Run:
    """The run that was exported, or a published pipeline, to be sampled or evaluated; it has no optimiser state.

    Exported adapters are added to the weights at which they stand.

    Raises:
      UserError: if the weights are damaged or not of the model.
    """
    mesh, interface = make_mesh(config.mesh), interface_of(meta)
    lora, config = config.lora, dataclasses.replace(config, lora=None)
    with use_mesh(mesh):
        graph, like = abstract_state(config, interface, mesh)
        params = load_params(config.init_from if lora else str(folder), config, interface, like.params)
        if lora:
            params = add_all(params, read_lora(Path(folder), config.model), 1.0)
    position = _exported_position(folder) if is_export(folder) else Position()
    state = TrainState(jnp.int32(position.step), params, params, None)
    shape = flops.shape_of(config.model, interface.patch, interface.text)
    return Run(config, folder, meta, mesh, graph, state, position, shape)


def _exported_position(folder: epath.Path) -> Position:
    try:
        return position_of(read_json(folder / EXPORT, keys=("position",))["position"])
    except (ValueError, AttributeError) as error:
        raise UserError(f"{folder / EXPORT} is damaged ({error}); export the run again") from error
