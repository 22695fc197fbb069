"""The video autoencoder of Wan 2.1 (Wan Team 2025, arXiv:2503.20314), from published safetensors in diffusers' layout.

Weights are a flat dictionary by their published names; kernels are transposed to (time, rows, columns, in, out).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from vdit.errors import UserError
from vdit.io.files import parse_json
from vdit.io.hub import find_weights, weights_hash
from vdit.io.safetensors import read_tensors, weight_files
from vdit.models.autoencoders.autoencoder import Autoencoder, Network
from vdit.models.autoencoders.causal_layers import (
    Stream,
    causal_conv,
    channel_norm,
    conv_2d,
    conv_3d,
    double_size,
    frame_attention,
)

Weights = dict[str, Array]
HALO = 8  # the published tiling overlaps as much; attention over the frame makes any tiling an approximation


@dataclasses.dataclass(frozen=True)
class WanVaeConfig:
    """Sizes; the defaults are those of Wan 2.1.

    Attributes:
      width: channels at full size.
      multiples: of them at each halving of the sides.
      blocks: residual blocks at each size (the decoder has one more).
      halve_time: whether time is halved too, at each halving of the sides.
      channels: of a latent.
      mean, std: of each latent channel over the training data.
    """

    width: int = 96
    multiples: tuple[int, ...] = (1, 2, 4, 4)
    blocks: int = 2
    halve_time: tuple[bool, ...] = (False, True, True)
    channels: int = 16
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def strides(self) -> tuple[int, int, int]:
        """Frames, rows and columns of one latent."""
        return 2 ** sum(self.halve_time), 2 ** len(self.halve_time), 2 ** len(self.halve_time)

    @classmethod
    def read(cls, path: Path) -> WanVaeConfig:
        """From a published config.json.

        Raises:
          UserError: if it is missing or of an autoencoder that this is not, such as that of Wan 2.2.
        """
        try:
            values = parse_json(path.read_bytes(), path)
            if values["_class_name"] != "AutoencoderKLWan":
                raise ValueError(f"_class_name {values['_class_name']!r}")
            unknown = [name for name in ("is_residual", "patch_size", "attn_scales") if values.get(name)]
            if unknown or values.get("decoder_base_dim") not in (None, values["base_dim"]):
                raise ValueError(f"{', '.join(unknown) or 'decoder_base_dim'} is set, as in Wan 2.2, which is not read")
            return cls(
                width=values["base_dim"],
                multiples=tuple(values["dim_mult"]),
                blocks=values["num_res_blocks"],
                halve_time=tuple(values["temperal_downsample"]),
                channels=values["z_dim"],
                mean=tuple(values["latents_mean"]),
                std=tuple(values["latents_std"]),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path} is not the config of a Wan 2.1 autoencoder ({error})") from error


@dataclasses.dataclass(frozen=True)
class _Layer:
    """A step of the encoder or decoder: kind, published name, channels in and out."""

    kind: str
    name: str
    inputs: int
    outputs: int


def _encoder(config: WanVaeConfig) -> Iterator[_Layer]:
    inputs = width = config.width
    yield _Layer("causal", "encoder.conv_in", 3, inputs)
    number = 0
    for level, multiple in enumerate(config.multiples):
        width = config.width * multiple
        for _ in range(config.blocks):
            yield _Layer("residual", f"encoder.down_blocks.{number}", inputs, width)
            inputs, number = width, number + 1
        if level < len(config.halve_time):
            kind = "halve_time" if config.halve_time[level] else "halve"
            yield _Layer(kind, f"encoder.down_blocks.{number}", width, width)
            number += 1
    yield from _middle("encoder", width)
    yield _Layer("head", "encoder", width, 2 * config.channels)
    yield _Layer("pointwise", "quant_conv", 2 * config.channels, 2 * config.channels)


def _decoder(config: WanVaeConfig) -> Iterator[_Layer]:
    yield _Layer("pointwise", "post_quant_conv", config.channels, config.channels)
    width = inputs = config.width * config.multiples[-1]
    yield _Layer("causal", "decoder.conv_in", config.channels, inputs)
    yield from _middle("decoder", inputs)
    for level, multiple in enumerate(reversed(config.multiples)):
        width = config.width * multiple
        block = f"decoder.up_blocks.{level}"
        for i in range(config.blocks + 1):
            yield _Layer("residual", f"{block}.resnets.{i}", inputs, width)
            inputs = width
        if level < len(config.halve_time):
            kind = "double_time" if config.halve_time[::-1][level] else "double"
            yield _Layer(kind, f"{block}.upsamplers.0", width, width // 2)
            inputs = width // 2
    yield _Layer("head", "decoder", width, 3)


def _middle(side: str, width: int) -> Iterator[_Layer]:
    yield _Layer("residual", f"{side}.mid_block.resnets.0", width, width)
    yield _Layer("attention", f"{side}.mid_block.attentions.0", width, width)
    yield _Layer("residual", f"{side}.mid_block.resnets.1", width, width)


def published_shapes(config: WanVaeConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every published tensor; convolutions are (out, in, time, rows, columns) or (out, in, rows, columns)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, *kernel)
        shapes[f"{name}.bias"] = (outputs,)

    for layer in (*_encoder(config), *_decoder(config)):
        name, inputs, outputs = layer.name, layer.inputs, layer.outputs
        if layer.kind == "causal":
            conv(name, inputs, outputs, 3, 3, 3)
        elif layer.kind == "pointwise":
            conv(name, inputs, outputs, 1, 1, 1)
        elif layer.kind == "residual":
            shapes[f"{name}.norm1.gamma"] = (inputs, 1, 1, 1)
            conv(f"{name}.conv1", inputs, outputs, 3, 3, 3)
            shapes[f"{name}.norm2.gamma"] = (outputs, 1, 1, 1)
            conv(f"{name}.conv2", outputs, outputs, 3, 3, 3)
            if inputs != outputs:
                conv(f"{name}.conv_shortcut", inputs, outputs, 1, 1, 1)
        elif layer.kind == "attention":
            shapes[f"{name}.norm.gamma"] = (inputs, 1, 1)
            conv(f"{name}.to_qkv", inputs, 3 * inputs, 1, 1)
            conv(f"{name}.proj", inputs, inputs, 1, 1)
        elif layer.kind == "head":
            shapes[f"{name}.norm_out.gamma"] = (inputs, 1, 1, 1)
            conv(f"{name}.conv_out", inputs, outputs, 3, 3, 3)
        else:
            conv(f"{name}.resample.1", inputs, outputs, 3, 3)
            if layer.kind == "halve_time":
                conv(f"{name}.time_conv", inputs, inputs, 3, 1, 1)
            elif layer.kind == "double_time":
                conv(f"{name}.time_conv", inputs, 2 * inputs, 3, 1, 1)
    return shapes


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
    x = _run(weights, stream, video_BTYXC, _encoder(config))[..., : config.channels]
    return (x - jnp.array(config.mean, x.dtype)) / jnp.array(config.std, x.dtype), stream.left


def decode(weights: Weights, latents_BTYXC: Array, past: Any, config: WanVaeConfig) -> tuple[Array, Any]:
    """Pixels of one chunk of latents; the way back of `encode`."""
    stream = Stream(past)
    x = latents_BTYXC * jnp.array(config.std, latents_BTYXC.dtype) + jnp.array(config.mean, latents_BTYXC.dtype)
    return _run(weights, stream, x, _decoder(config)), stream.left


def _run(weights: Weights, stream: Stream, x: Array, layers: Iterator[_Layer]) -> Array:
    for layer in layers:
        x = _LAYERS[layer.kind](weights, stream, layer.name, x)
    return x


def _causal(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    return causal_conv(stream, name, x, w[f"{name}.weight"], w[f"{name}.bias"])


def _residual(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    straight = _causal(w, stream, f"{name}.conv_shortcut", x) if f"{name}.conv_shortcut.weight" in w else x
    for i in (1, 2):
        x = jax.nn.silu(channel_norm(x, w[f"{name}.norm{i}.gamma"]))
        x = _causal(w, stream, f"{name}.conv{i}", x)
    return x + straight


def _attention(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    del stream  # frames attend within themselves
    none = ((0, 0), (0, 0))
    h = channel_norm(x, w[f"{name}.norm.gamma"])
    q, k, v = jnp.split(conv_2d(h, w[f"{name}.to_qkv.weight"], w[f"{name}.to_qkv.bias"], padding=none), 3, axis=-1)
    mixed = frame_attention(q, k, v)
    return x + conv_2d(mixed, w[f"{name}.proj.weight"], w[f"{name}.proj.bias"], padding=none)


def _head(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    return _causal(w, stream, f"{name}.conv_out", jax.nn.silu(channel_norm(x, w[f"{name}.norm_out.gamma"])))


def _halve(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    del stream
    kernel, bias = w[f"{name}.resample.1.weight"], w[f"{name}.resample.1.bias"]
    return conv_2d(x, kernel, bias, stride=2, padding=((0, 1), (0, 1)))


def _halve_time(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    x = _halve(w, stream, name, x)
    if stream.first:  # the first frame is a group by itself
        stream.keep(name, x, 1)
        return x
    return conv_3d(stream.extend(name, x, 1), w[f"{name}.time_conv.weight"], w[f"{name}.time_conv.bias"], time_stride=2)


def _double(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    del stream
    return conv_2d(double_size(x), w[f"{name}.resample.1.weight"], w[f"{name}.resample.1.bias"])


def _double_time(w: Weights, stream: Stream, name: str, x: Array) -> Array:
    if stream.first:  # stays one frame, and later frames do not see it here, as published
        stream.keep(name, jnp.zeros_like(x, shape=(x.shape[0], 2, *x.shape[2:])), 2)
    else:
        pairs = causal_conv(stream, name, x, w[f"{name}.time_conv.weight"], w[f"{name}.time_conv.bias"])
        x = jnp.stack(jnp.split(pairs, 2, axis=-1), axis=2).reshape(x.shape[0], -1, *x.shape[2:])
    return _double(w, stream, name, x)


_LAYERS = {
    "causal": _causal,
    "pointwise": _causal,
    "residual": _residual,
    "attention": _attention,
    "head": _head,
    "halve": _halve,
    "halve_time": _halve_time,
    "double": _double,
    "double_time": _double_time,
}


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
        halo=HALO,
    )
