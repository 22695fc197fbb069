"""The video autoencoders of Wan 2.1 and 2.2 (Wan Team 2025, arXiv:2503.20314), from safetensors in diffusers' layout.

Weights are a flat dictionary by their published names; kernels are transposed to (time, rows, columns, in, out).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdit.io.weights.hub import find_weights, weights_hash
from vdit.io.weights.safetensors import read_tensors, weight_files
from vdit.models.autoencoders import wan_vae_layers as layers
from vdit.models.autoencoders.autoencoder import Autoencoder, Network
from vdit.models.autoencoders.causal_layers import Stream
from vdit.models.autoencoders.wan_vae_config import WanVaeConfig
from vdit.models.autoencoders.wan_vae_layers import Weights, published_shapes

HALO_PIXELS = 64
"""As much as the published tiling overlaps; attention over the frame makes any tiling an approximation."""


def read_weights(path: Path, config: WanVaeConfig, dtype: Any = np.float32) -> Weights:
    """The weights of published safetensors.

    Raises:
      UserError: if the files do not hold exactly this autoencoder's tensors.
    """

    def ours(array: np.ndarray) -> Array:
        if array.ndim >= 4 and array.shape[1:] != (1,) * (array.ndim - 1):
            array = np.moveaxis(array, (0, 1), (-1, -2))
        elif array.ndim > 1:
            array = array.reshape(-1)  # a gain
        return jnp.asarray(array, dtype)

    return {name: ours(array) for name, array in read_tensors(path, published_shapes(config)).items()}


def encode(weights: Weights, video_BTYXC: Array, past: Any, config: WanVaeConfig) -> tuple[Array, Any]:
    """Mean latents, scaled by the config's mean and std, of one chunk: a first frame, or 4 k later ones.

    Args:
      weights: of `read_weights`.
      video_BTYXC: pixels in [-1, 1].
      past: what the chunk before left; None for the first.
      config: sizes.

    Returns:
      latents_BTYXC and what is left for the next chunk.
    """
    stream = Stream(past)
    patches_BTYXC = layers.squares_to_channels(video_BTYXC, config.patch)
    x = layers.run(weights, stream, patches_BTYXC, layers.encoder(config))[..., : config.channels]
    return (x - jnp.array(config.mean, x.dtype)) / jnp.array(config.std, x.dtype), stream.left


def decode(weights: Weights, latents_BTYXC: Array, past: Any, config: WanVaeConfig) -> tuple[Array, Any]:
    """Pixels of one chunk of latents; the way back of `encode`."""
    stream = Stream(past)
    x = latents_BTYXC * jnp.array(config.std, latents_BTYXC.dtype) + jnp.array(config.mean, latents_BTYXC.dtype)
    patches_BTYXC = layers.run(weights, stream, x, layers.decoder(config))
    return layers.channels_to_squares(patches_BTYXC, config.patch), stream.left


def wan_config(where: str) -> tuple[Path, WanVaeConfig]:
    """(folder, config) of published weights; see `load_wan_vae`."""
    root = find_weights(where, ("config.json", "*.safetensors", "vae/*"))
    folder = root / "vae" if (root / "vae").is_dir() else root
    return folder, WanVaeConfig.read(folder / "config.json")


def load_wan_vae(where: str, dtype: Any = None) -> Autoencoder:
    """The autoencoder with published weights.

    Args:
      where: a folder with config.json and safetensors, or a pipeline's folder with one such in vae/; or a hub id.
      dtype: of weights and activations; default float32 on CPU, bfloat16 elsewhere.

    Raises:
      UserError: if files are missing or do not fit each other.
    """
    folder, config = wan_config(where)
    dtype = jnp.dtype(dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16"))
    weights = read_weights(folder, config, dtype)

    def compiled(function: Any) -> Network:
        return jax.jit(lambda weights, x, past: function(weights, x.astype(dtype), past, config))

    return Autoencoder(
        name=f"wan:{where}",
        hash=weights_hash(weight_files(folder)),
        strides=config.strides,
        channels=config.channels,
        weights=weights,
        encoder=compiled(encode),
        decoder=compiled(decode),
        halo=HALO_PIXELS // config.strides[1],
    )
