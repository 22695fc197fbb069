"""Our video compression network: a causal variational autoencoder over spacetime patches.

A patch (4 x 8 x 8 pixels by default) becomes one latent. The encoder is a linear map of the patch, which starts as the
principal components of the data, plus what causal convolutions over neighbouring and earlier patches add to it; the
decoder mirrors it. So training starts at the quality of a PCA and can only add to it. Work is done at the resolution of
the latents, where it is cheap, and the decoder's last blocks at twice their rows and columns, where edges between
patches are inside of what a convolution sees. Frame 0 fills a patch by itself, so one frame is an image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdit.autoencoder_config import AutoencoderConfig
from vdit.models.autoencoders.causal_layers import Stream, causal_conv
from vdit.patches import Patch

Weights = Mapping[str, Array]
CHANNELS = 3
LEAST_LOG_VARIANCE = -12.0
FINE = 2
"""Rows and columns of the decoder's last blocks for each of the latents'."""


@dataclasses.dataclass(frozen=True)
class PrincipalComponents:
    """Of patches in [-1, 1]: mean (P), the first C components (P, C), orthonormal, and the deviation along each (C)."""

    mean_P: np.ndarray
    components_PC: np.ndarray
    deviation_C: np.ndarray

    def reconstruct(self, patches_LP: np.ndarray) -> np.ndarray:
        """The patches as their components give them."""
        scores_LC = (patches_LP - self.mean_P) @ self.components_PC
        return scores_LC @ self.components_PC.T + self.mean_P


def shapes(config: AutoencoderConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every weight; kernels are (time, rows, columns, in, out)."""
    size, width, latent = Patch(*config.strides).size(CHANNELS), config.width, config.channels
    out: dict[str, tuple[int, ...]] = {
        "mean": (size,),
        "encoder.linear": (size, latent),
        "encoder.in": (size, width),
        "encoder.out": (width, 2 * latent),
        "encoder.out_bias": (2 * latent,),
        "decoder.linear": (latent, size),
        "decoder.in": (2, 3, 3, latent, width),
        "decoder.in_bias": (width,),
        "decoder.out": (width, size),
    }
    parts = [("encoder", config.encoder_blocks, width), ("decoder", config.decoder_blocks, width)]
    if config.fine_blocks:
        out["fine.in"] = (width, FINE**2 * config.fine_width)
        out["fine.out"] = (config.fine_width, size // FINE**2)
        parts.append(("fine", config.fine_blocks, config.fine_width))
    for side, blocks, width in parts:
        for i in range(blocks):
            block = f"{side}.block{i}"
            out[f"{block}.gain"] = (width,)
            # The first block sees the patch before, too; more of that costs more than it gives.
            out[f"{block}.conv"] = (2 if i == 0 and side != "fine" else 1, 3, 3, width, width)
            out[f"{block}.conv_bias"] = (width,)
            out[f"{block}.out"] = (width, width)
            out[f"{block}.out_bias"] = (width,)
    return out


def initial_weights(config: AutoencoderConfig, seed: int, basis: PrincipalComponents) -> dict[str, Array]:
    """Weights of an autoencoder that does what the principal components do, and has room to learn more.

    Args:
      config: sizes.
      seed: of the random weights.
      basis: components of patches in [-1, 1], as many as a latent has channels.
    """
    rng = np.random.default_rng(seed)
    weights: dict[str, Array] = {}
    for name, shape in shapes(config).items():
        if name.endswith("gain"):
            value = np.ones(shape)
        elif name.endswith(("bias", ".out")):  # what convolutions add starts at nothing
            value = np.zeros(shape)
        else:
            value = rng.normal(size=shape) * float(np.prod(shape[:-1])) ** -0.5
        weights[name] = jnp.asarray(value, jnp.float32)
    weights["mean"] = jnp.asarray(basis.mean_P)
    weights["encoder.linear"] = jnp.asarray(basis.components_PC / basis.deviation_C)
    weights["decoder.linear"] = jnp.asarray((basis.components_PC * basis.deviation_C).T)
    log_variance = jnp.full(config.channels, 2 * np.log(config.initial_noise), jnp.float32)
    weights["encoder.out_bias"] = jnp.concatenate([jnp.zeros(config.channels), log_variance])
    return weights


def moments(weights: Weights, patches_BTYXP: Array, past: Any, config: AutoencoderConfig) -> tuple[Array, Array, Any]:
    """Mean and log-variance of the latents of a chunk of patches.

    Args:
      weights: see `shapes`.
      patches_BTYXP: patches in [-1, 1].
      past: what the chunk before left; None for the first.
      config: sizes.

    Returns:
      mean_BTYXC, log_variance_BTYXC and what is left for the next chunk.
    """
    stream = Stream(past)
    x_BTYXP = patches_BTYXP - weights["mean"]
    h_BTYXD = _blocks(weights, stream, "encoder", x_BTYXP @ weights["encoder.in"], config.encoder_blocks)
    out = h_BTYXD @ weights["encoder.out"] + weights["encoder.out_bias"]
    added, log_variance = jnp.split(out, 2, axis=-1)
    return x_BTYXP @ weights["encoder.linear"] + added, jnp.maximum(log_variance, LEAST_LOG_VARIANCE), stream.left


def reconstruct(weights: Weights, latents_BTYXC: Array, past: Any, config: AutoencoderConfig) -> tuple[Array, Any]:
    """Patches in about [-1, 1] of a chunk of latents, and what is left for the next chunk."""
    stream = Stream(past)
    h_BTYXD = causal_conv(stream, "decoder.in", latents_BTYXC, weights["decoder.in"], weights["decoder.in_bias"])
    h_BTYXD = _blocks(weights, stream, "decoder", h_BTYXD, config.decoder_blocks)
    patches_BTYXP = latents_BTYXC @ weights["decoder.linear"] + h_BTYXD @ weights["decoder.out"] + weights["mean"]
    if config.fine_blocks:
        patches_BTYXP += _fine_patches(weights, stream, h_BTYXD, config)
    return patches_BTYXP, stream.left


def _fine_patches(weights: Weights, stream: Stream, h_BTYXD: Array, config: AutoencoderConfig) -> Array:
    """What blocks at twice the rows and columns add to patches."""
    b, t, y, x, _ = h_BTYXD.shape
    split = (h_BTYXD @ weights["fine.in"]).reshape(b, t, y, x, FINE, FINE, config.fine_width)
    fine = split.transpose(0, 1, 2, 4, 3, 5, 6).reshape(b, t, FINE * y, FINE * x, config.fine_width)
    out = _blocks(weights, stream, "fine", fine, config.fine_blocks) @ weights["fine.out"]
    time, height, width = config.strides
    pieces = out.reshape(b, t, y, FINE, x, FINE, time, height // FINE, width // FINE, CHANNELS)
    return pieces.transpose(0, 1, 2, 4, 6, 3, 7, 5, 8, 9).reshape(b, t, y, x, -1)


def group_frames(video_BTYXC: Array, first: bool, patch: Patch) -> Array:
    """Frames as patches_BTYXP; the first frame of a clip (`first`) is repeated to fill a patch."""
    b, t, y, x, c = video_BTYXC.shape
    if first:
        head = jnp.repeat(video_BTYXC[:, :1], patch.time, axis=1)
        video_BTYXC = jnp.concatenate([head, video_BTYXC[:, 1:]], axis=1)
        t += patch.time - 1
    grid = (t // patch.time, y // patch.height, x // patch.width)
    blocks = video_BTYXC.reshape(b, grid[0], patch.time, grid[1], patch.height, grid[2], patch.width, c)
    return blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, *grid, patch.size(c))


def ungroup_frames(patches_BTYXP: Array, first: bool, patch: Patch) -> Array:
    """The way back of `group_frames`; the copies that fill the first patch are averaged."""
    b, t, y, x, _ = patches_BTYXP.shape
    blocks = patches_BTYXP.reshape(b, t, y, x, patch.time, patch.height, patch.width, CHANNELS)
    frames = blocks.transpose(0, 1, 4, 2, 5, 3, 6, 7)
    frames = frames.reshape(b, t * patch.time, y * patch.height, x * patch.width, CHANNELS)
    if not first:
        return frames
    return jnp.concatenate([frames[:, : patch.time].mean(axis=1, keepdims=True), frames[:, patch.time :]], axis=1)


def _blocks(weights: Weights, stream: Stream, side: str, x_BTYXD: Array, count: int) -> Array:
    for i in range(count):
        name = f"{side}.block{i}"
        h = x_BTYXD * jax.lax.rsqrt(jnp.mean(x_BTYXD**2, axis=-1, keepdims=True) + 1e-6) * weights[f"{name}.gain"]
        h = jax.nn.silu(causal_conv(stream, name, h, weights[f"{name}.conv"], weights[f"{name}.conv_bias"]))
        x_BTYXD = x_BTYXD + h @ weights[f"{name}.out"] + weights[f"{name}.out_bias"]
    return x_BTYXD


def halo(config: AutoencoderConfig) -> int:
    """Latents on every side that either network's result depends on: one for each 3 x 3 convolution, or two fine."""
    return max(config.encoder_blocks, 1 + config.decoder_blocks + -(-config.fine_blocks // FINE))
