"""Inception v3 as the FID takes it (Heusel et al. 2017): 2048 features of a frame.

The weights are those of TensorFlow's "inception-2015-12-05" as pytorch-fid publishes them for PyTorch
(pt_inception-2015-12-05-6726825d.pth), or the same as safetensors. That network differs from torchvision's: its mean
pools do not count padding, and its last block takes the largest values instead of means.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vdit.models.features.convnets import Network, Unit, load, max_pool, mean_pool, scaled

SIDE = 299
BATCH = 16

ACROSS, DOWN = (1, 7), (7, 1)


def features(unit: Unit, x: jax.Array) -> jax.Array:
    """Means over the last layer, features_NF, of frames_NYXC in [-1, 1]."""
    x = unit(x, "Conv2d_1a_3x3", 32, 3, 2, "VALID")
    x = unit(x, "Conv2d_2a_3x3", 32, 3, 1, "VALID")
    x = _halved(unit(x, "Conv2d_2b_3x3", 64, 3))
    x = unit(x, "Conv2d_3b_1x1", 80)
    x = _halved(unit(x, "Conv2d_4a_3x3", 192, 3, 1, "VALID"))
    for name, pooled in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = _block_a(functools.partial(_within, unit, f"Mixed_{name}"), x, pooled)
    x = _block_b(functools.partial(_within, unit, "Mixed_6a"), x)
    for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = _block_c(functools.partial(_within, unit, f"Mixed_{name}"), x, width)
    x = _block_d(functools.partial(_within, unit, "Mixed_7a"), x)
    x = _block_e(functools.partial(_within, unit, "Mixed_7b"), x, _mean)
    x = _block_e(functools.partial(_within, unit, "Mixed_7c"), x, lambda x: max_pool(x, (3, 3), (1, 1), "SAME"))
    return x.mean((1, 2))


def _within(unit: Unit, block: str, x: jax.Array, name: str, *rest: object) -> jax.Array:
    return unit(x, f"{block}.{name}", *rest)


def _halved(x: jax.Array) -> jax.Array:
    return max_pool(x, (3, 3), (2, 2), "VALID")


def _mean(x: jax.Array) -> jax.Array:
    return mean_pool(x, (3, 3), "SAME")


def _block_a(unit: Unit, x: jax.Array, pooled: int) -> jax.Array:
    double = unit(unit(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    branches = [
        unit(x, "branch1x1", 64),
        unit(unit(x, "branch5x5_1", 48), "branch5x5_2", 64, 5),
        unit(double, "branch3x3dbl_3", 96, 3),
        unit(_mean(x), "branch_pool", pooled),
    ]
    return jnp.concatenate(branches, -1)


def _block_b(unit: Unit, x: jax.Array) -> jax.Array:
    double = unit(unit(x, "branch3x3dbl_1", 64), "branch3x3dbl_2", 96, 3)
    branches = [
        unit(x, "branch3x3", 384, 3, 2, "VALID"),
        unit(double, "branch3x3dbl_3", 96, 3, 2, "VALID"),
        _halved(x),
    ]
    return jnp.concatenate(branches, -1)


def _block_c(unit: Unit, x: jax.Array, width: int) -> jax.Array:
    single = unit(unit(x, "branch7x7_1", width), "branch7x7_2", width, ACROSS)
    double = unit(unit(x, "branch7x7dbl_1", width), "branch7x7dbl_2", width, DOWN)
    double = unit(unit(double, "branch7x7dbl_3", width, ACROSS), "branch7x7dbl_4", width, DOWN)
    branches = [
        unit(x, "branch1x1", 192),
        unit(single, "branch7x7_3", 192, DOWN),
        unit(double, "branch7x7dbl_5", 192, ACROSS),
        unit(_mean(x), "branch_pool", 192),
    ]
    return jnp.concatenate(branches, -1)


def _block_d(unit: Unit, x: jax.Array) -> jax.Array:
    long = unit(unit(x, "branch7x7x3_1", 192), "branch7x7x3_2", 192, ACROSS)
    branches = [
        unit(unit(x, "branch3x3_1", 192), "branch3x3_2", 320, 3, 2, "VALID"),
        unit(unit(long, "branch7x7x3_3", 192, DOWN), "branch7x7x3_4", 192, 3, 2, "VALID"),
        _halved(x),
    ]
    return jnp.concatenate(branches, -1)


def _block_e(unit: Unit, x: jax.Array, pool: Callable[[jax.Array], jax.Array]) -> jax.Array:
    single = unit(x, "branch3x3_1", 384)
    double = unit(unit(x, "branch3x3dbl_1", 448), "branch3x3dbl_2", 384, 3)
    branches = [
        unit(x, "branch1x1", 320),
        unit(single, "branch3x3_2a", 384, (1, 3)),
        unit(single, "branch3x3_2b", 384, (3, 1)),
        unit(double, "branch3x3dbl_3a", 384, (1, 3)),
        unit(double, "branch3x3dbl_3b", 384, (3, 1)),
        unit(pool(x), "branch_pool", 192),
    ]
    return jnp.concatenate(branches, -1)


NETWORK = Network(features, "conv", (1, SIDE, SIDE, 3), unused=("fc.weight", "fc.bias"))


def load_features(path: str | os.PathLike[str], batch: int = BATCH) -> tuple[Callable[[np.ndarray], np.ndarray], str]:
    """A function from uint8 frames_NYXC to features_NF, and what they are.

    Args:
      path: file of weights.
      batch: frames at once.

    Raises:
      UserError: if the file does not hold the weights.
    """
    run, digest = load(NETWORK, path)

    def of(frames_NYXC: np.ndarray) -> np.ndarray:
        out = []
        for start in range(0, len(frames_NYXC), batch):
            part = frames_NYXC[start : start + batch]
            padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.uint8)])
            out.append(np.asarray(run(scaled(padded, SIDE)))[: len(part)])
        return np.concatenate(out)

    return of, f"Inception v3 of 2015-12-05, weights {digest}"
