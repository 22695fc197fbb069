"""Random weights of a small Wan transformer as they are published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from vdit.config import ModelConfig
from vdit.models.wan.wan_weights import MASK_CHANNELS, Published, published_shapes


def write_published(
    folder: Path,
    model: ModelConfig,
    interface: tuple[int, tuple[int, int, int], int],
    dtype: Any = np.float32,
    drop: str = "",
    add: str = "",
    seed: int = 0,
    **values: Any,
) -> Path:
    """Writes config.json and safetensors.

    Args:
      folder: where to.
      model: sizes; with `condition` it is one of image to video.
      interface: generated latent channels, patch, caption features.
      dtype: of the tensors.
      drop, add: names of a tensor that is left out, and of one that does not belong there.
      seed: of the weights.
      **values: what config.json says instead.
    """
    generated, patch, text = interface
    channels = 2 * generated + MASK_CHANNELS if model.condition else generated
    rng = np.random.default_rng(seed)
    tensors = {
        name: (rng.normal(size=shape) * 0.2 + ("norm" in name and name.endswith("weight"))).astype(dtype)
        for name, shape in published_shapes(Published(model, channels, generated, patch, text)).items()
        if name != drop
    }
    if add:
        tensors[add] = np.zeros(3, dtype)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    about = {
        "_class_name": "WanTransformer3DModel",
        "patch_size": patch,
        "num_attention_heads": model.heads,
        "attention_head_dim": model.head_width,
        "in_channels": channels,
        "out_channels": generated,
        "image_dim": model.image or None,
        "added_kv_proj_dim": model.width if model.image else None,
        "text_dim": text,
        "freq_dim": 256,
        "ffn_dim": model.feed_forward_width,
        "num_layers": model.depth,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "eps": 1e-6,
    }
    (folder / "config.json").write_text(json.dumps({**about, **values}))
    return folder
