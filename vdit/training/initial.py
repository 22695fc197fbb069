"""Parameters that a run starts from (config.init_from), and the names under which they are written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath

from vdit.config import Config, ModelConfig, Modes, TrainConfig
from vdit.data import Interface
from vdit.errors import UserError
from vdit.io.files import read_json
from vdit.io.weights.hub import find_weights
from vdit.io.weights.safetensors import open_tensors
from vdit.models.autoencoders.wan_vae_config import WanVaeConfig
from vdit.models.wan import wan_weights
from vdit.models.wan.wan_pipeline import ALL_TIMES, EXPERTS, INDEX, read_pipeline, times_of_expert
from vdit.training.record.workdir import read_config
from vdit.training.recovery.checkpoint import Checkpoints, checkpoint_steps

SIZES = (
    "width",
    "depth",
    "head_width",
    "feed_forward",
    "base_width",
    "base_depth",
    "prediction",
    "condition",
    "image",
)
"""Fields of the model that the weights of a Wan transformer, or those under adapters, decide."""

HUB_FILES = (INDEX, "transformer/*", "transformer_2/*", "config.json", "diffusion_pytorch_model*", "model*")
"""What is fetched of a hub repository: not the text encoder of a whole pipeline, which is the larger part of it."""


def named(params: Any) -> dict[str, Any]:
    """Parameters by name, such as "blocks.qkv"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {jax.tree_util.keystr(path[:-1], simple=True, separator="."): leaf for path, leaf in leaves}


def of_weights(config: Config, workdir: epath.Path) -> Config:
    """The config with what the weights of init_from decide, for model.family "wan" or with config.lora.

    These are sizes, of latents of Wan that they are taken as they are, and of an expert its range of times; of our own
    models under adapters, the mean and deviation that they take their data to have.

    A run that resumes has them in its workdir, so the weights may be gone by then (but for config.lora).

    Raises:
      UserError: if init_from has no readable config, or is a pipeline of two experts.
    """
    if config.lora and not config.init_from:
        raise UserError("config.lora needs the weights at which adapters stand; give --config.init_from")
    if not config.init_from or not (config.model.family == "wan" or config.lora):
        return config
    mean: tuple[float, ...] = (0.0,)
    std = config.diffusion.input_std
    if (workdir / "config.json").exists() and read_config(workdir).init_from == config.init_from:
        found = read_config(workdir)
        model, times = found.model, found.diffusion.times
        mean, std = found.diffusion.mean, found.diffusion.input_std
    else:
        model, times = _of_source(source := _source(config.init_from), config.model)
        if times != ALL_TIMES and source.name == EXPERTS[0] and source != epath.Path(config.init_from):
            ranges = read_pipeline(source.parent).times
            each = (f"{source.parent / name} (times {ranges(name)})" for name in EXPERTS)
            raise UserError(
                f"init_from={config.init_from} holds two experts; name the one to train: {' or '.join(each)}"
            )
        if config.model.family != "wan" and not _is_published(source):
            found = read_config(source if source.is_dir() else source.parent)
            mean, std = found.diffusion.mean, found.diffusion.input_std
    if model.image:
        raise UserError(
            f"init_from={config.init_from} attends to CLIP features of a given image, which data sets do not hold; "
            "it can be sampled, but not trained (Wan 2.2's image to video can)"
        )
    sizes = {name: getattr(model, name) for name in SIZES}
    diffusion = dataclasses.replace(config.diffusion, mean=mean, input_std=std, times=times)
    if model.condition:  # what is given is said by the condition, not by times of 0
        diffusion = dataclasses.replace(diffusion, modes=Modes(text=1.0))
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **sizes), diffusion=diffusion)


def _of_source(source: epath.Path, model: ModelConfig) -> tuple[ModelConfig, tuple[float, ...]]:
    """The model config and the range of times of given weights of family "wan"; `model` has what they leave open."""
    if _is_published(source):
        return wan_weights.read_config(Path(source) / "config.json", model).model, times_of_expert(source)
    began = read_config(source if source.is_dir() else source.parent)
    return began.model, began.diffusion.times


def trained_times(where: str) -> tuple[float, ...]:
    """The range of times that the network of given weights, see `load_params`, is for.

    Raises:
      UserError: if they say nothing of themselves.
    """
    return tuple(_of_source(_source(where), ModelConfig(family="wan"))[1])


def check_latents(where: str, meta: Mapping[str, Any]) -> None:
    """Raises UserError if the autoencoder beside published weights makes other latents than the data's did.

    Weights may be stored in several ways, so it is strides that are compared here, and channels when they are loaded.
    """
    source = _source(where)
    if not (_is_published(source) and (source.parent / "vae" / "config.json").exists()):
        return
    theirs = WanVaeConfig.read(Path(source.parent) / "vae" / "config.json").strides
    ours = {"name": "pixels", "strides": (1, 1, 1), **meta.get("autoencoder", {})}
    if tuple(theirs) != tuple(ours["strides"]):
        raise UserError(
            f"init_from={where} is for latents of {theirs} frames, rows and columns; the data, made with "
            f"{ours['name']}, has latents of {tuple(ours['strides'])}: build it with the autoencoder of the weights"
        )


def load_params(where: str, config: Config, interface: Interface, like: Any) -> Any:
    """Parameters from a workdir's newest checkpoint (the averaged ones) or from safetensors.

    Args:
      where: see `Config.init_from`.
      config, interface: of the run.
      like: parameters, or their shapes and shardings.

    Raises:
      UserError: naming a tensor that is missing, unexpected or of another shape.
    """
    source = _source(where)
    if steps := checkpoint_steps(source):
        if read_config(source).lora:
            raise UserError(f"init_from={where} holds adapters; python -m vdit.export --merge makes weights of them")
        with Checkpoints(source, TrainConfig(), create=False) as checkpoints:
            stored = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, np.float32, sharding=x.sharding), like)
            average = checkpoints.restore_average(stored, steps[-1])
        return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), average, like)
    with _open(source, config, interface, like) as get:

        def load(name: str, leaf: Any) -> jax.Array:
            array = np.asarray(get(name), leaf.dtype)
            return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda part: array[part])

        leaves = [load(name, leaf) for name, leaf in named(like).items()]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


@contextlib.contextmanager
def _open(source: epath.Path, config: Config, interface: Interface, like: Any) -> Iterator[Callable[[str], np.ndarray]]:
    if not _is_published(source):
        shapes = {name: tuple(leaf.shape) for name, leaf in named(like).items()}
        with open_tensors(os.fspath(source), shapes) as get:
            yield get
    elif config.model.family == "wan":
        with wan_weights.open_published(Path(source), config.model, interface) as get:
            yield get
    else:
        raise UserError(f"init_from={source} are weights of Wan; set model.family=wan")


def _source(where: str) -> epath.Path:
    """The workdir, folder or file; a hub id's folder; the transformer's folder of a whole pipeline."""
    path = epath.Path(where)
    if not path.exists():
        path = epath.Path(find_weights(where, HUB_FILES))
    return path / "transformer" if (path / "transformer").is_dir() else path


def _is_published(source: epath.Path) -> bool:
    """Whether it is a folder with weights as published by others."""
    return (source / "config.json").exists() and "_class_name" in read_json(source / "config.json")
