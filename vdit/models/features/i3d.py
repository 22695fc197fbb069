"""I3D on RGB (Carreira & Zisserman 2017), trained on Kinetics-400, as the FVD takes it: 400 logits of a clip.

The weights are a state dict with the names of pytorch-i3d (rgb_imagenet.pt, or i3d_pretrained_400.pt of the common FVD
codes), or the same as safetensors.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vdit.errors import UserError
from vdit.models.features.convnets import Network, Unit, load, max_pool, mean_pool, scaled

SIDE = 224
LEAST_FRAMES = 9
"""A clip of fewer frames leaves nothing for the last pool, which spans two of eight."""

MIXED = {
    **{"3b": (64, 96, 128, 16, 32, 32), "3c": (128, 128, 192, 32, 96, 64)},
    **{"4b": (192, 96, 208, 16, 48, 64), "4c": (160, 112, 224, 24, 64, 64), "4d": (128, 128, 256, 24, 64, 64)},
    **{"4e": (112, 144, 288, 32, 64, 64), "4f": (256, 160, 320, 32, 128, 128)},
    **{"5b": (256, 160, 320, 32, 128, 128), "5c": (384, 192, 384, 48, 128, 128)},
}
"""Channels of each block's branches: 1x1; 1x1 and 3x3; 1x1 and 3x3; 1x1 after a pool."""

POOLS = {"4b": ((3, 3, 3), (2, 2, 2)), "5b": ((2, 2, 2), (2, 2, 2))}
"""Windows and strides of the pools before some blocks."""


def logits(unit: Unit, x: jax.Array) -> jax.Array:
    """Means over time of the logits of clips_NTYXC in [-1, 1], logits_NF."""
    x = max_pool(unit(x, "Conv3d_1a_7x7", 64, 7, 2), (1, 3, 3), (1, 2, 2), "SAME")
    x = unit(unit(x, "Conv3d_2b_1x1", 64), "Conv3d_2c_3x3", 192, 3)
    x = max_pool(x, (1, 3, 3), (1, 2, 2), "SAME")
    for name, widths in MIXED.items():
        if name in POOLS:
            x = max_pool(x, *POOLS[name], "SAME")
        x = _mixed(unit, f"Mixed_{name}", x, widths)
    x = mean_pool(x, (2, 7, 7), "VALID")
    return unit(x, "logits", 400).mean((1, 2, 3))


def _mixed(unit: Unit, name: str, x: jax.Array, widths: tuple[int, ...]) -> jax.Array:
    pooled = max_pool(x, (3, 3, 3), (1, 1, 1), "SAME")
    branches = [
        unit(x, f"{name}.b0", widths[0]),
        unit(unit(x, f"{name}.b1a", widths[1]), f"{name}.b1b", widths[2], 3),
        unit(unit(x, f"{name}.b2a", widths[3]), f"{name}.b2b", widths[4], 3),
        unit(pooled, f"{name}.b3b", widths[5]),
    ]
    return jnp.concatenate(branches, -1)


NETWORK = Network(logits, "conv3d", (1, LEAST_FRAMES, SIDE, SIDE, 3), plain=("logits",))


def load_features(path: str | os.PathLike[str]) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function from one uint8 video_TYXC to features_1F, compiled for each length, and what they are.

    Raises:
      UserError: if the file does not hold the weights; the function if a video has fewer frames than `LEAST_FRAMES`.
    """
    run, digest = load(NETWORK, path)

    def of(video_TYXC: np.ndarray) -> np.ndarray:
        if len(video_TYXC) < LEAST_FRAMES:
            raise UserError(f"I3D needs clips of {LEAST_FRAMES} frames, one has {len(video_TYXC)}; leave out --i3d")
        return np.asarray(run(scaled(video_TYXC, SIDE)[None]))

    return of, f"I3D of Kinetics-400 RGB, weights {digest}"
