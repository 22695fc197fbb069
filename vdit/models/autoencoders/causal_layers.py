"""Layers of causal video networks, which run over a clip chunk by chunk.

A chunk sees the frames before it through what its layers kept of them. So a clip of any length takes the memory of one
chunk, and the result is that of the whole clip at once.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array, lax

_AXES_2D = ("NHWC", "HWIO", "NHWC")
_AXES_3D = ("NDHWC", "DHWIO", "NDHWC")


class Stream:
    """The past of a chunk, layer by layer, and what the chunk leaves for the next.

    Args:
      past: what the chunk before left; None for the first chunk, which is one frame.

    Attributes:
      first: whether this is the first chunk.
      left: what this chunk leaves, filled as its layers run.
    """

    def __init__(self, past: Mapping[str, Array] | None):
        self._past = past
        self.first = past is None
        self.left: dict[str, Array] = {}

    def extend(self, name: str, x_BTYXC: Array, frames: int) -> Array:
        """The chunk with its last `frames` frames of the past in front: zeros before the first chunk."""
        if self._past is None:
            before = jnp.zeros_like(x_BTYXC, shape=(x_BTYXC.shape[0], frames, *x_BTYXC.shape[2:]))
        else:
            before = self._past[name]
        joined_BTYXC = jnp.concatenate([before, x_BTYXC], axis=1)
        self.keep(name, joined_BTYXC, frames)
        return joined_BTYXC

    def keep(self, name: str, x_BTYXC: Array, frames: int) -> None:
        """Leaves the last `frames` frames for the next chunk."""
        self.left[name] = x_BTYXC[:, -frames:]


def conv_3d(x_BTYXC: Array, kernel: Array, bias: Array, time_stride: int = 1) -> Array:
    """Convolution over time, without padding there, and space, padded to the same size.

    Args:
      x_BTYXC: frames, the past in front.
      kernel: (time, rows, columns, in, out); rows and columns odd.
      bias: (out,).
      time_stride: step over time.
    """
    padding = [(size // 2, size // 2) for size in kernel.shape[1:3]]
    if jax.default_backend() != "cpu":
        strides = (time_stride, 1, 1)
        return lax.conv_general_dilated(x_BTYXC, kernel, strides, [(0, 0), *padding], dimension_numbers=_AXES_3D) + bias
    # XLA's convolutions over three axes are slow on CPU: one over two axes for every time step of the kernel.
    length = (x_BTYXC.shape[1] - kernel.shape[0]) // time_stride + 1
    out = bias
    for t, kernel_2d in enumerate(kernel):
        frames = x_BTYXC[:, t : t + (length - 1) * time_stride + 1 : time_stride]
        out = out + _per_frame(frames, kernel_2d, (1, 1), padding)
    return out


def causal_conv(stream: Stream, name: str, x_BTYXC: Array, kernel: Array, bias: Array) -> Array:
    """Convolution in which a frame sees only itself and the frames before it."""
    if kernel.shape[0] > 1:
        x_BTYXC = stream.extend(name, x_BTYXC, kernel.shape[0] - 1)
    return conv_3d(x_BTYXC, kernel, bias)


def conv_2d(
    x_BTYXC: Array, kernel: Array, bias: Array, stride: int = 1, padding: tuple[tuple[int, int], ...] = ((1, 1), (1, 1))
) -> Array:
    """Convolution of every frame by itself; kernel (rows, columns, in, out)."""
    return _per_frame(x_BTYXC, kernel, (stride, stride), list(padding)) + bias


def _per_frame(x_BTYXC: Array, kernel: Array, strides: tuple[int, int], padding: list[tuple[int, int]]) -> Array:
    frames = x_BTYXC.reshape(-1, *x_BTYXC.shape[2:])
    out = lax.conv_general_dilated(frames, kernel, strides, padding, dimension_numbers=_AXES_2D)
    return out.reshape(*x_BTYXC.shape[:2], *out.shape[1:])


def double_size(x_BTYXC: Array) -> Array:
    """Every pixel four times."""
    return jnp.repeat(jnp.repeat(x_BTYXC, 2, axis=2), 2, axis=3)


def channel_norm(x_BTYXC: Array, gain_C: Array) -> Array:
    """Root-mean-square normalisation over channels, pixel by pixel; statistics in float32."""
    wide = x_BTYXC.astype(jnp.float32)
    norm = jnp.sqrt(jnp.sum(wide**2, axis=-1, keepdims=True))
    return (wide / jnp.maximum(norm, 1e-12)).astype(x_BTYXC.dtype) * (gain_C * x_BTYXC.shape[-1] ** 0.5)


def frame_attention(q_BTYXC: Array, k_BTYXC: Array, v_BTYXC: Array) -> Array:
    """Attention of one head among the pixels of a frame, one frame after another to bound its memory."""
    flat = [x.reshape(-1, x.shape[2] * x.shape[3], x.shape[-1]) for x in (q_BTYXC, k_BTYXC, v_BTYXC)]

    def one(frame: tuple[Array, Array, Array]) -> Array:
        q, k, v = frame
        score = (q @ k.T).astype(jnp.float32) * q.shape[-1] ** -0.5
        return jax.nn.softmax(score, axis=-1).astype(v.dtype) @ v

    return lax.map(one, tuple(flat)).reshape(q_BTYXC.shape)
