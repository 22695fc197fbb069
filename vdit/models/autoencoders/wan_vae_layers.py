"""The layers of Wan's video autoencoders (Wan Team 2025, arXiv:2503.20314), in order, and what each one does.

In Wan 2.1 one layer follows another. In Wan 2.2 those of one size form a stage, to whose result an average of the
stage's input is added where sides and time are halved, or copies of it where they are doubled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from vdit.models.autoencoders.causal_layers import (
    Stream,
    causal_conv,
    channel_norm,
    conv_2d,
    conv_3d,
    double_size,
    frame_attention,
)
from vdit.models.autoencoders.wan_vae_config import WanVaeConfig

Weights = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A step of the encoder or decoder.

    Attributes:
      kind: one of `_LAYERS`.
      name: published.
      inputs, outputs: channels.
      inside: the layers of a stage.
      factors: by which a stage divides or multiplies time and sides.
    """

    kind: str
    name: str
    inputs: int
    outputs: int
    inside: tuple[Layer, ...] = ()
    factors: tuple[int, int] = (1, 1)


def encoder(config: WanVaeConfig) -> Iterator[Layer]:
    """From patches of pixels to mean and log variance of the latents."""
    inputs = config.width
    yield Layer("causal", "encoder.conv_in", config.pixel_channels, inputs)
    number = 0
    for level, multiple in enumerate(config.multiples):
        width, last = config.width * multiple, level == len(config.halve_time)
        halve_time = not last and config.halve_time[level]
        stage = f"encoder.down_blocks.{level}"
        names = [f"{stage}.resnets.{i}" for i in range(config.blocks)] + [f"{stage}.downsampler"]
        if not config.residual:  # blocks are counted through
            names = [f"encoder.down_blocks.{number + i}" for i in range(config.blocks + 1)]
            number += len(names)
        layers = _residuals(names[:-1], inputs, width)
        if not last:
            layers.append(Layer("halve_time" if halve_time else "halve", names[-1], width, width))
        if config.residual:
            yield Layer("averaged", stage, inputs, width, tuple(layers), (1 + halve_time, 1 if last else 2))
        else:
            yield from layers
        inputs = width
    yield from _middle("encoder", inputs)
    yield Layer("head", "encoder", inputs, 2 * config.channels)
    yield Layer("pointwise", "quant_conv", 2 * config.channels, 2 * config.channels)


def decoder(config: WanVaeConfig) -> Iterator[Layer]:
    """From latents to patches of pixels."""
    base = config.decoder_width or config.width
    yield Layer("pointwise", "post_quant_conv", config.channels, config.channels)
    inputs = base * config.multiples[-1]
    yield Layer("causal", "decoder.conv_in", config.channels, inputs)
    yield from _middle("decoder", inputs)
    for level, multiple in enumerate(reversed(config.multiples)):
        width, last = base * multiple, level == len(config.halve_time)
        double_time = not last and config.halve_time[::-1][level]
        kind = "double_time" if double_time else "double"
        stage = f"decoder.up_blocks.{level}"
        layers = _residuals([f"{stage}.resnets.{i}" for i in range(config.blocks + 1)], inputs, width)
        if last:
            yield from layers
            inputs = width
        elif config.residual:
            layers.append(Layer(kind, f"{stage}.upsampler", width, width))
            yield Layer("copied", stage, inputs, width, tuple(layers), (1 + double_time, 2))
            inputs = width
        else:
            yield from layers
            inputs = width // 2
            yield Layer(kind, f"{stage}.upsamplers.0", width, inputs)
    yield Layer("head", "decoder", inputs, config.pixel_channels)


def _residuals(names: Sequence[str], inputs: int, width: int) -> list[Layer]:
    """Residual blocks, the first from `inputs` channels."""
    return [Layer("residual", name, width if i else inputs, width) for i, name in enumerate(names)]


def _middle(side: str, width: int) -> Iterator[Layer]:
    yield Layer("residual", f"{side}.mid_block.resnets.0", width, width)
    yield Layer("attention", f"{side}.mid_block.attentions.0", width, width)
    yield Layer("residual", f"{side}.mid_block.resnets.1", width, width)


def published_shapes(config: WanVaeConfig) -> dict[str, tuple[int, ...]]:
    """Shape of every published tensor; convolutions are (out, in, time, rows, columns) or (out, in, rows, columns)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, inputs: int, outputs: int, *kernel: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, *kernel)
        shapes[f"{name}.bias"] = (outputs,)

    def add(layers: Iterable[Layer]) -> None:
        for layer in layers:
            name, inputs, outputs = layer.name, layer.inputs, layer.outputs
            if layer.inside:
                add(layer.inside)
            elif layer.kind == "causal":
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

    add((*encoder(config), *decoder(config)))
    return shapes


def run(weights: Weights, stream: Stream, x_BTYXC: Array, layers: Iterable[Layer]) -> Array:
    """The layers one after another."""
    for layer in layers:
        if layer.kind == "averaged":
            x_BTYXC = run(weights, stream, x_BTYXC, layer.inside) + averaged(x_BTYXC, layer.outputs, *layer.factors)
        elif layer.kind == "copied":
            added = copied(x_BTYXC, layer.outputs, *layer.factors)
            # The first frame is a group by itself: of its copies in time the last one counts.
            added = added[:, layer.factors[0] - 1 :] if stream.first else added
            x_BTYXC = run(weights, stream, x_BTYXC, layer.inside) + added
        else:
            x_BTYXC = _LAYERS[layer.kind](weights, stream, layer.name, x_BTYXC)
    return x_BTYXC


def averaged(x_BTYXC: Array, channels: int, time: int, side: int) -> Array:
    """Boxes of time x side x side pixels become channels, of which neighbours are averaged until there are `channels`.

    A chunk that does not fill its boxes, which is the first frame, has zeros in front.
    """
    x_BTYXC = jnp.pad(x_BTYXC, ((0, 0), (-x_BTYXC.shape[1] % time, 0), (0, 0), (0, 0), (0, 0)))
    b, t, y, x, c = x_BTYXC.shape
    boxes = x_BTYXC.reshape(b, t // time, time, y // side, side, x // side, side, c)
    boxes = boxes.transpose(0, 1, 3, 5, 7, 2, 4, 6)
    return boxes.reshape(b, t // time, y // side, x // side, channels, -1).mean(-1)


def copied(x_BTYXC: Array, channels: int, time: int, side: int) -> Array:
    """Channels, copied as often as is needed, become boxes of time x side x side pixels; the way back of `averaged`."""
    b, t, y, x, c = x_BTYXC.shape
    boxes = jnp.repeat(x_BTYXC, channels * time * side**2 // c, axis=-1)
    boxes = boxes.reshape(b, t, y, x, channels, time, side, side).transpose(0, 1, 5, 2, 6, 3, 7, 4)
    return boxes.reshape(b, t * time, y * side, x * side, channels)


def squares_to_channels(x_BTYXC: Array, side: int) -> Array:
    """Squares of pixels become channels, in the published order: channel, column, row."""
    b, t, y, x, c = x_BTYXC.shape
    squares = x_BTYXC.reshape(b, t, y // side, side, x // side, side, c).transpose(0, 1, 2, 4, 6, 5, 3)
    return squares.reshape(b, t, y // side, x // side, c * side**2)


def channels_to_squares(x_BTYXC: Array, side: int) -> Array:
    """The way back of `squares_to_channels`."""
    b, t, y, x, c = x_BTYXC.shape
    squares = x_BTYXC.reshape(b, t, y, x, c // side**2, side, side).transpose(0, 1, 2, 6, 3, 5, 4)
    return squares.reshape(b, t, y * side, x * side, c // side**2)


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
