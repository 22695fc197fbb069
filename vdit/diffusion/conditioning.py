"""Which patches are given: the one thing in which the modes of generation differ.

A given patch has time 0 and carries no loss. What is given is whole groups of frames.
"""

from __future__ import annotations

import jax.numpy as jnp

from vdit.config import DiffusionConfig
from vdit.patches import Array

MODES = {"text": 0, "first_frame": 1, "two_groups": 2}
"""Leading groups that each mode gives: nothing, the first frame, the first frame and the group after it."""


def draw_given_groups(uniform: Array, grid: Array, config: DiffusionConfig) -> Array:
    """Number of given groups of each example by the shares of the config.

    Args:
      uniform: in [0, 1).
      grid: (..., 3) patch grids.

    Returns:
      int32; always fewer than the example's groups, so that something is left to generate.
    """
    groups = (uniform >= config.text).astype(jnp.int32) + (uniform >= config.text + config.first_frame)
    return jnp.minimum(groups, jnp.maximum(grid[..., 0] - 1, 0))


def given_patches(given_groups: Array, grid: Array, token: Array) -> Array:
    """True for patches in the first `given_groups` groups of their example.

    Args:
      given_groups: of each slot's example.
      grid: (..., 3) of each slot's example.
      token: index of the patch within its example.
    """
    return token < given_groups * grid[..., 1] * grid[..., 2]
