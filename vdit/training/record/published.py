"""A published text-to-video pipeline of Wan 2.1 as a run that can be sampled: its folder stands for a workdir."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from etils import epath

from vdit.config import Config, DataConfig, DiffusionConfig, MeshConfig, ModelConfig
from vdit.errors import UserError
from vdit.io.files import read_json

CLASS = "WanPipeline"
FPS = 16.0
"""Frames per second of the videos that it was trained on."""

CAPTION, STRIDES = 512, (4, 8, 8)
FLOW_SHIFT = 3.0


def is_pipeline(folder: epath.Path) -> bool:
    """Whether it is the folder of a whole published pipeline."""
    return (folder / "model_index.json").exists()


def pipeline_config(folder: epath.Path) -> Config:
    """The config of a run on its latents. One video takes all devices: its tokens lie over them, as do the weights.

    Raises:
      UserError: if it is another pipeline.
    """
    from vdit.models.wan import wan_weights

    if (found := _read(folder / "model_index.json").get("_class_name")) != CLASS:
        raise UserError(f"{folder} holds a {found}; only {CLASS} (text to video) can be sampled")
    model = wan_weights.read_config(Path(folder) / "transformer" / "config.json", ModelConfig(family="wan")).model
    shift = float(_read(folder / "scheduler" / "scheduler_config.json").get("flow_shift") or FLOW_SHIFT)
    return Config(
        data=DataConfig(row_examples=2, row_text=2 * CAPTION, rows_per_step=1),
        model=model,
        diffusion=DiffusionConfig(size_shift=False, shift=shift, mean=(0.0,)),
        mesh=MeshConfig(replica=1, context=-1),
    )


def on_this_backend(config: Config) -> Config:
    """The config with the attention kernel and the dtype of the devices that are here."""
    import jax

    kernels = {"tpu": "splash", "gpu": "gpu"}
    if (backend := jax.default_backend()) not in kernels:
        return config
    model = dataclasses.replace(config.model, attention=kernels[backend], dtype="bfloat16")
    return dataclasses.replace(config, model=model)


def pipeline_meta(folder: epath.Path) -> dict[str, Any]:
    """What a data set of its latents and captions would say of itself."""
    from vdit.io.hub import weights_hash
    from vdit.io.safetensors import weight_files
    from vdit.models.text.t5 import T5Config
    from vdit.models.wan import wan_weights

    published = wan_weights.read_config(Path(folder) / "transformer" / "config.json", ModelConfig(family="wan"))
    vae, text = Path(folder) / "vae", Path(folder) / "text_encoder"
    width = T5Config.read(text / "config.json").width
    return {
        "patch": list(published.patch),
        "channels": published.channels,
        "autoencoder": {"name": f"wan:{folder}", "hash": weights_hash(weight_files(vae)), "strides": list(STRIDES)},
        "text_encoder": {
            "name": f"umt5:{folder}",
            "width": width,
            "hash": weights_hash(weight_files(text)),
            "encode_empty": True,
        },
        "fps": FPS / STRIDES[0],
    }


def _read(path: epath.Path) -> dict[str, Any]:
    return read_json(path, mend="fetch the pipeline again")
