"""A published pipeline of Wan 2.1 or 2.2 as a run that can be sampled: its folder stands for a workdir."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from etils import epath

from vdit.config import Config, DataConfig, DiffusionConfig, MeshConfig, ModelConfig
from vdit.errors import UserError
from vdit.io.files import read_json
from vdit.models.wan.wan_pipeline import EXPERTS, INDEX, check_experts, read_pipeline

FPS, TIME_PER_TOKEN_FPS = 16.0, 24.0
"""Frames per second of the videos that it was trained on; the second of those with a time for every token (TI2V)."""

CAPTION_TOKENS = 512 + 257
"""At most: of the text, and of a given image."""

FLOW_SHIFT = 3.0


def is_pipeline(folder: epath.Path) -> bool:
    """Whether it is the folder of a whole published pipeline."""
    return (folder / INDEX).exists()


def pipeline_config(folder: epath.Path) -> Config:
    """The config of a run on its latents. One video takes all devices: its tokens lie over them, as do the weights.

    Of two experts it is that of the first.

    Raises:
      UserError: if it is another pipeline, or an expert is missing.
    """
    from vdit.models.wan import wan_weights

    pipeline = read_pipeline(folder)
    check_experts(pipeline)
    transformer = pipeline.folder / EXPERTS[0]
    model = wan_weights.read_config(transformer / "config.json", ModelConfig(family="wan")).model
    if bool(model.condition) != pipeline.image_to_video:
        raise UserError(f"{transformer} is not of the pipeline that {folder / INDEX} names; fetch the pipeline again")
    shift = float(_read(folder / "scheduler" / "scheduler_config.json").get("flow_shift") or FLOW_SHIFT)
    return Config(
        data=DataConfig(row_examples=2, row_text=2 * CAPTION_TOKENS, rows_per_step=1),
        model=model,
        diffusion=DiffusionConfig(size_shift=False, shift=shift, mean=(0.0,), times=pipeline.times(EXPERTS[0])),
        mesh=MeshConfig(replica=1, context=-1),
    )


def on_this_backend(config: Config) -> Config:
    """The config with the dtype of the devices that are here."""
    import jax

    if jax.default_backend() not in ("tpu", "gpu"):
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, dtype="bfloat16"))


def pipeline_meta(folder: epath.Path) -> dict[str, Any]:
    """What a data set of its latents and captions would say of itself.

    Raises:
      UserError: if its transformer is not for the latents of its autoencoder.
    """
    from vdit.io.weights.hub import weights_hash
    from vdit.io.weights.safetensors import weight_files
    from vdit.models.autoencoders.wan_vae_config import WanVaeConfig
    from vdit.models.text.t5 import T5Config
    from vdit.models.wan import wan_weights

    published = wan_weights.read_config(Path(folder) / EXPERTS[0] / "config.json", ModelConfig(family="wan"))
    vae, text = Path(folder) / "vae", Path(folder) / "text_encoder"
    latents, width = WanVaeConfig.read(vae / "config.json"), T5Config.read(text / "config.json").width
    if latents.channels != published.generated:
        raise UserError(
            f"{folder}/transformer makes latents of {published.generated} channels, those of {vae} have "
            f"{latents.channels}; fetch the autoencoder of this pipeline"
        )
    image_to_video = bool(published.model.condition)
    known = {"condition": published.channels - published.generated} if image_to_video else {}
    return {
        "patch": list(published.patch),
        "channels": published.channels,
        "autoencoder": {
            "name": f"{'wan_i2v' if image_to_video else 'wan'}:{folder}",
            "hash": weights_hash(weight_files(vae)),
            "strides": list(latents.strides),
            **known,
        },
        "text_encoder": {
            "name": f"umt5:{folder}",
            "width": width,
            "hash": weights_hash(weight_files(text)),
            "encode_empty": True,
        },
        "fps": (TIME_PER_TOKEN_FPS if read_pipeline(folder).time_per_token else FPS) / latents.strides[0],
    }


def _read(path: epath.Path) -> dict[str, Any]:
    return read_json(path, mend="fetch the pipeline again")
