"""Three-dimensional rotary position embedding: time, row, column."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

SHARES = (0.25, 0.375, 0.375)
"""Shares of a head's frequency pairs that rotate with time, row and column (close to HunyuanVideo's 16/56/56)."""

FASTEST = 2.0
"""Radians per patch of the fastest frequency. The usual 1.0 hardly distinguishes neighbouring patches of a small clip:
the cosine between them is then 0.54 at best, and attention to "the same place, a moment ago" cannot be sharp."""

THETA = 128.0
"""Slowest wavelength over the fastest: 3 to 400 patches, for positions are few (HunyuanVideo takes 256, not 10,000)."""


def split_pairs(head_width: int) -> tuple[int, int, int]:
    """Number of frequency pairs for time, row and column; they sum to head_width / 2."""
    pairs = head_width // 2
    space = int(pairs * SHARES[1])  # rounded down, so that small heads see time too
    return pairs - 2 * space, space, space


def rotary_table(positions_BL3: jax.Array, head_width: int) -> tuple[jax.Array, jax.Array]:
    """Cosine and sine of every token's angles (Su et al. 2021, one axis after another).

    Args:
      positions_BL3: float32 (time, row, column); any real numbers, so sizes never trained on work.
      head_width: K, even.

    Returns:
      cos_BLK, sin_BLK with K = head_width / 2, float32.
    """
    pairs = split_pairs(head_width)
    return angle_table(positions_BL3, [FASTEST * THETA ** -(np.arange(n, dtype=np.float32) / max(n, 1)) for n in pairs])


def angle_table(positions_BL3: jax.Array, frequencies: Sequence[np.ndarray]) -> tuple[jax.Array, jax.Array]:
    """As `rotary_table`, for given radians per position of the pairs of each axis."""
    angle_BLK = jnp.concatenate(
        [positions_BL3[..., axis : axis + 1] * frequency_K for axis, frequency_K in enumerate(frequencies)], axis=-1
    )
    return jnp.cos(angle_BLK), jnp.sin(angle_BLK)


def rotate(x_BHLK: jax.Array, table: tuple[jax.Array, jax.Array], gain_K: jax.Array | float = 1.0) -> jax.Array:
    """Rotates the halves of each head, times a gain, against each other by the table's angles; float32 or wider."""
    wide = jnp.promote_types(x_BHLK.dtype, jnp.float32)
    cos, sin = (t[:, None].astype(wide) for t in table)
    half = x_BHLK.shape[-1] // 2
    gain_K = jnp.broadcast_to(gain_K, x_BHLK.shape[-1]).astype(wide)
    rolled = jnp.roll(x_BHLK, half, axis=-1).astype(wide) * jnp.roll(gain_K, half)
    return x_BHLK.astype(wide) * gain_K * jnp.concatenate([cos, cos], -1) + rolled * jnp.concatenate([-sin, sin], -1)


WAVES = (4.0, 8.0, 16.0, 32.0)
"""Wavelengths of the absolute position features, in patches (or groups at the reference rate)."""

POSITION_FEATURES = 3 * 2 * len(WAVES)


def position_features(positions_BL3: jax.Array) -> jax.Array:
    """Sines and cosines of every coordinate, features_BLE float32, added to the tokens at the input.

    Rotary attention encodes where a token attends, not what it reads there: without these a value cannot say where it
    comes from, and small models are slow to learn motion.
    """
    angle = positions_BL3[..., None] * (2 * np.pi / np.array(WAVES, np.float32))
    angle = angle.reshape(*positions_BL3.shape[:2], -1)
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)
