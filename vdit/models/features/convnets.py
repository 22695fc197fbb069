"""What published feature networks of convolutions share. A network is written down once, as a function of (unit, x).

`unit` stands for a convolution with what follows it. Run on shapes alone, the function says which tensors a file of
weights must hold; run with them, it computes features.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vdit.io.weights.pth import read_weights

EPSILON = 1e-3
"""Of every batch norm of the networks here."""

NORM = ("weight", "bias", "running_mean", "running_var")

Layer = tuple[Any, Any]
"""A kernel (space..., in, out) and a shift."""

Unit = Callable[..., jax.Array]
"""unit(x, name, channels, kernel=1, stride=1, padding="SAME"): x is channels last, of any number of dimensions."""


class Network(NamedTuple):
    """A network, and what its weights are called.

    Attributes:
      body: features of x by way of units, each a convolution, a batch norm and a ReLU.
      convolution: what the convolution of a unit is called in the weights; its norm is called "bn".
      input: shape of some x.
      plain: units that are a convolution and a bias.
      unused: tensors of the published weights that the features do not need.
    """

    body: Callable[[Unit, jax.Array], jax.Array]
    convolution: str
    input: tuple[int, ...]
    plain: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def tensor_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that a network needs, as PyTorch has them."""
    shapes: dict[str, tuple[int, ...]] = {}

    def unit(
        x: jax.Array, name: str, channels: int, kernel: int | Sequence[int] = 1, stride: int = 1, padding: str = "SAME"
    ) -> jax.Array:
        space = x.ndim - 2
        size = (kernel,) * space if isinstance(kernel, int) else tuple(kernel)
        shapes[f"{name}.{network.convolution}.weight"] = (channels, x.shape[-1], *size)
        if name in network.plain:
            shapes[f"{name}.{network.convolution}.bias"] = (channels,)
        else:
            shapes.update({f"{name}.bn.{part}": (channels,) for part in NORM})
        return convolve(x, (jnp.zeros((*size, x.shape[-1], channels)), 0.0), stride, padding)

    jax.eval_shape(lambda x: network.body(unit, x), jax.ShapeDtypeStruct(network.input, jnp.float32))
    return shapes


def load(network: Network, path: str | os.PathLike[str]) -> tuple[Callable[[jax.Array], jax.Array], str]:
    """A compiled function from x to features, float32, and the first digits of the SHA-256 of the file of weights.

    Raises:
      UserError: if the file cannot be read or does not hold the network's weights.
    """
    shapes, last = tensor_shapes(network), f".{network.convolution}.weight"
    names = [name.removesuffix(last) for name in shapes if name.endswith(last)]
    counters = [f"{name}.bn.num_batches_tracked" for name in names]
    tensors = read_weights(path, shapes, {*network.unused, *counters})
    weights: dict[str, Layer] = {}
    for name in names:
        norm = None if name in network.plain else f"{name}.bn"
        weights[name] = jax.tree.map(jnp.asarray, fold(tensors, f"{name}.{network.convolution}", norm))

    @jax.jit
    def run(weights: dict[str, Layer], x: jax.Array) -> jax.Array:
        def unit(
            x: jax.Array, name: str, channels: int, kernel: Any = 1, stride: int = 1, padding: str = "SAME"
        ) -> Any:
            out = convolve(x, weights[name], stride, padding)
            return out if name in network.plain else jax.nn.relu(out)

        with jax.default_matmul_precision("highest"):
            return network.body(unit, x)

    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return (lambda x: run(weights, x)), digest[:16]


def fold(tensors: Mapping[str, np.ndarray], convolution: str, norm: str | None) -> Layer:
    """A convolution with the scale and shift of the batch norm that follows it, or with its own bias."""
    kernel = np.moveaxis(tensors[f"{convolution}.weight"], (0, 1), (-1, -2))
    if norm is None:
        return kernel, tensors[f"{convolution}.bias"]
    gain, shift, mean, variance = (tensors[f"{norm}.{part}"] for part in NORM)
    scale = gain / np.sqrt(variance + EPSILON)
    return kernel * scale, shift - mean * scale


def convolve(x: jax.Array, layer: Layer, stride: int = 1, padding: str = "SAME", groups: int = 1) -> jax.Array:
    """Convolution of x, channels last, with TensorFlow's "SAME" or with "VALID" padding."""
    kernel, shift = layer
    space = x.ndim - 2
    letters = "DHW"[-space:]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    ones = (1,) * space
    return jax.lax.conv_general_dilated(x, kernel, (stride,) * space, padding, ones, ones, numbers, groups) + shift


def max_pool(x: jax.Array, size: Sequence[int], stride: Sequence[int], padding: str) -> jax.Array:
    """Largest values of windows over the dimensions between the first and the last."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *size, 1), (1, *stride, 1), padding)


def mean_pool(x: jax.Array, size: Sequence[int], padding: str) -> jax.Array:
    """Means of windows, one step apart; what lies outside x is not counted."""
    window, ones = (1, *size, 1), (1,) * x.ndim
    counted = jnp.ones((1, *x.shape[1:-1], 1))  # small: XLA sums constants when it compiles, and slowly
    total, count = (jax.lax.reduce_window(y, 0.0, jax.lax.add, window, ones, padding) for y in (x, counted))
    return total / count


def scaled(frames_NYXC: np.ndarray, side: int) -> jax.Array:
    """uint8 frames at side x side (bilinear, without averaging, as is usual before these networks), in [-1, 1]."""
    shape = (len(frames_NYXC), side, side, frames_NYXC.shape[-1])
    return jax.image.resize(frames_NYXC.astype(np.float32), shape, "linear", antialias=False) / 127.5 - 1
