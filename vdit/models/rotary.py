"""Three-dimensional rotary position embedding: time, row, column."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

SHARES = (0.25, 0.375, 0.375)
"""Shares of a head's frequency pairs that turn with time, row and column (close to HunyuanVideo's 16/56/56)."""

THETA = 256.0
"""Longest wavelength over the shortest (HunyuanVideo: positions are few, so 256 rather than 10,000)."""


def split_pairs(head_width: int) -> tuple[int, int, int]:
    """Number of frequency pairs for time, row and column; they sum to head_width / 2."""
    pairs = head_width // 2
    space = int(round(pairs * SHARES[1]))
    return pairs - 2 * space, space, space


def rotary_table(positions_BL3: jax.Array, head_width: int) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every token's angles (Su et al. 2021, one axis after another).

    Args:
      positions_BL3: float32 (time, row, column); any real numbers, so sizes never trained on work.
      head_width: K, even.

    Returns:
      cos_BLK, sin_BLK with K = head_width / 2, float32.
    """
    columns = []
    for axis, pairs in enumerate(split_pairs(head_width)):
        frequency_K = THETA ** -(np.arange(pairs, dtype=np.float32) / max(pairs, 1))
        columns.append(positions_BL3[..., axis : axis + 1] * frequency_K)
    angle_BLK = jnp.concatenate(columns, axis=-1)
    return jnp.cos(angle_BLK), jnp.sin(angle_BLK)


def rotate(x_BLHK: jax.Array, table: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Turns the halves of each head against each other by the table's angles."""
    cos, sin = (t[:, :, None].astype(x_BLHK.dtype) for t in table)
    first, second = jnp.split(x_BLHK, 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
