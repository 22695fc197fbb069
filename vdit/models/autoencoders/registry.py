"""The video autoencoders by name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from vdit.autoencoder_config import AutoencoderConfig
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.io.files import parse_json, whole_file, write_json
from vdit.io.weights.hub import find_weights, weights_hash
from vdit.io.weights.safetensors import read_tensors
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.models.autoencoders.wan_i2v import load_wan_i2v
from vdit.models.autoencoders.wan_vae import load_wan_vae, wan_config
from vdit.patches import Patch

KINDS = ("causal_vae", "wan", "wan_i2v")
"""Kinds of autoencoder; each takes weights: "wan:FOLDER", "causal_vae:WORKDIR", or a hub id, OWNER/NAME@REVISION."""

EXPORT = "autoencoder"
"""Folder of a workdir in which a finished autoencoder run leaves its weights."""


def load_autoencoder(name: str) -> Autoencoder:
    """Loads an autoencoder.

    Args:
      name: a kind of `KINDS`, a colon, and a folder of weights, the workdir of a run that trained them, or a hub id.

    Raises:
      UserError: the name is unknown, or the weights cannot be had or are of another kind.
    """
    kind, where = _parts(name)
    loaders = {"causal_vae": load_causal_vae, "wan": load_wan_vae, "wan_i2v": load_wan_i2v}
    return loaders[kind](where)


def strides_of(name: str) -> tuple[int, int, int]:
    """Frames, rows and columns of pixels in one latent of the autoencoder of that name, without loading its weights."""
    kind, where = _parts(name)
    time, height, width = _read_config(where)[1].strides if kind == "causal_vae" else wan_config(where)[1].strides
    return time, height, width


def _parts(name: str) -> tuple[str, str]:
    kind, _, where = name.partition(":")
    if kind not in KINDS or not where:
        raise UserError(f"no autoencoder is called {name!r}; choose one of {', '.join(f'{k}:WEIGHTS' for k in KINDS)}")
    return kind, where


def save_causal_vae(
    folder: Path, weights: Mapping[str, Any], config: AutoencoderConfig, mean_C: np.ndarray, std_C: np.ndarray
) -> None:
    """Writes weights, in half precision, and config of a causal_vae.

    Args:
      folder: where to; made if it is not there.
      weights, config: of it.
      mean_C, std_C: of its latents over the training data, which loading uses to scale them to unit variance.
    """
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.ascontiguousarray(array, np.float16) for name, array in weights.items()}
    with whole_file(folder / "model.safetensors") as partial:
        save_file(arrays, partial)
    about = {"kind": "causal_vae", "mean": mean_C.tolist(), "std": std_C.tolist(), **dataclasses.asdict(config)}
    write_json(folder / "config.json", about)


def load_causal_vae(where: str) -> Autoencoder:
    """A causal_vae from the folder that `save_causal_vae` wrote, or a workdir or hub repository that holds it.

    Raises:
      UserError: if it is not there, or its files do not fit each other.
    """
    folder, config, mean, std = _read_config(where)
    file, weights = folder / "model.safetensors", read_causal_vae(where, config)
    patch = Patch(*config.strides)

    @jax.jit
    def encode(weights: Any, video_BTYXC: jax.Array, past: Any) -> Any:
        patches = causal_vae.group_frames(video_BTYXC, past is None, patch)
        latents, _, left = causal_vae.moments(weights, patches, past, config)
        return (latents - mean) / std, left

    @jax.jit
    def decode(weights: Any, latents_BTYXC: jax.Array, past: Any) -> Any:
        patches, left = causal_vae.reconstruct(weights, latents_BTYXC * std + mean, past, config)
        return causal_vae.ungroup_frames(patches, past is None, patch), left

    return Autoencoder(
        name=f"causal_vae:{where}",
        hash=weights_hash([file]),
        strides=(patch.time, patch.height, patch.width),
        channels=config.channels,
        weights=weights,
        encoder=encode,
        decoder=decode,
        halo=causal_vae.halo(config),
    )


def read_causal_vae(where: str, config: AutoencoderConfig) -> dict[str, jax.Array]:
    """The weights that `load_causal_vae` loads, which must be of the config.

    Raises:
      UserError: naming a tensor that is missing, unexpected or of another shape.
    """
    tensors = read_tensors(_read_config(where)[0] / "model.safetensors", causal_vae.shapes(config))
    return {name: jax.numpy.asarray(array, np.float32) for name, array in tensors.items()}


def _read_config(where: str) -> tuple[Path, AutoencoderConfig, np.ndarray, np.ndarray]:
    """(folder, config, mean and deviation of the latents) of a saved causal_vae."""
    root = find_weights(where, ("config.json", "*.safetensors"))
    folder = root / EXPORT if (root / EXPORT).is_dir() else root
    try:
        values = parse_json((folder / "config.json").read_bytes(), folder / "config.json")
        if values.pop("kind") != "causal_vae":
            raise ValueError("its kind is another")
        mean_C, std_C = (np.array(values.pop(name), np.float32) for name in ("mean", "std"))
        config = build(values, AutoencoderConfig)
        if not mean_C.shape == std_C.shape == (config.channels,):
            raise ValueError(f"mean and std are not {config.channels} numbers each")
        return folder, config, mean_C, std_C
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder}/config.json is not that of a causal_vae ({error!r}); train one, or name its workdir"
        ) from error
