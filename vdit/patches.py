"""Video <-> spacetime patches, and the position of every patch.

Time is causal: frame 0 is a group by itself, repeated to fill its patch, and every later group holds
`patch.time` frames. So a video has 1 + k * patch.time frames, and an image is a video of one frame.
All functions take NumPy and JAX arrays alike.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

Array = Any  # np.ndarray or jax.Array

REFERENCE_RATE = 6.0
"""Rotary time runs at this many positions per second (24 frames/s in groups of 4)."""


class Grid(NamedTuple):
    """Number of patches of a clip along time (groups), height and width."""

    t: int
    y: int
    x: int

    @property
    def tokens(self) -> int:
        return self.t * self.y * self.x


@dataclasses.dataclass(frozen=True)
class Patch:
    """Extent of one patch in frames, rows and columns of the stored array (pixels or latents)."""

    time: int = 4
    height: int = 8
    width: int = 8

    def size(self, channels: int = 3) -> int:
        """Length P of one patch vector."""
        return self.time * self.height * self.width * channels

    def grid(self, frames: int, height: int, width: int) -> Grid:
        """The patch grid of a clip.

        Raises:
          ValueError: if a side is not a positive multiple of the patch, or frames is not 1 + k * time.
        """
        if frames < 1 or (frames - 1) % self.time:
            raise ValueError(f"frames={frames} is not 1 + k*{self.time}; cut the clip to {self.floor_frames(frames)}")
        for name, side, step in (("height", height, self.height), ("width", width, self.width)):
            if side < step or side % step:
                raise ValueError(f"{name}={side} is not a positive multiple of the patch's {step}")
        return Grid(1 + (frames - 1) // self.time, height // self.height, width // self.width)

    def floor_frames(self, frames: int) -> int:
        """The longest length of the form 1 + k * time that is at most `frames` (at least 1)."""
        return 1 + max(0, frames - 1) // self.time * self.time

    def frames(self, groups: int) -> int:
        """Number of frames that `groups` groups hold."""
        return 1 + (groups - 1) * self.time


def patchify(video_TYXC: Array, patch: Patch) -> Array:
    """Cuts a clip into patch vectors, in the order time, row, column.

    Args:
      video_TYXC: clip of any dtype, sides as `Patch.grid` demands.
      patch: extent of a patch.

    Returns:
      patches_LP, same dtype, L = grid.tokens; a vector's elements run over (time, y, x, channel).
    """
    frames, height, width, channels = video_TYXC.shape
    grid = patch.grid(frames, height, width)
    blocks = video_TYXC[1:].reshape(grid.t - 1, patch.time, grid.y, patch.height, grid.x, patch.width, channels)
    first = video_TYXC[:1].reshape(1, 1, grid.y, patch.height, grid.x, patch.width, channels)
    if isinstance(video_TYXC, np.ndarray):
        out = np.empty((grid.t, grid.y, grid.x, patch.time, patch.height, patch.width, channels), video_TYXC.dtype)
        out[0] = first.transpose(0, 2, 4, 1, 3, 5, 6)[0]
        out[1:] = blocks.transpose(0, 2, 4, 1, 3, 5, 6)
        return out.reshape(grid.tokens, -1)
    import jax.numpy as jnp

    groups = jnp.concatenate([jnp.repeat(first, patch.time, axis=1), blocks])
    return groups.transpose(0, 2, 4, 1, 3, 5, 6).reshape(grid.tokens, -1)


def patchify_apart(video_TYXC: np.ndarray, patch: Patch, condition: int) -> np.ndarray:
    """As `patchify`; the last `condition` channels of all of a patch come behind the others."""
    if not condition:
        return patchify(video_TYXC, patch)
    parts = video_TYXC[..., :-condition], video_TYXC[..., -condition:]
    return np.concatenate([patchify(part, patch) for part in parts], -1)


def unpatchify(patches_LP: Array, grid: Grid, patch: Patch) -> Array:
    """Puts patch vectors back together; the inverse of `patchify`.

    The copies that fill the first group are averaged (exact where they are equal).

    Returns:
      video_TYXC, same dtype.
    """
    channels = patches_LP.shape[-1] // patch.size(1)
    blocks = patches_LP.reshape(*grid, patch.time, patch.height, patch.width, channels)
    frames = blocks.transpose(0, 3, 1, 4, 2, 5, 6)  # t, time, y, height, x, width, channels
    frames = frames.reshape(grid.t, patch.time, grid.y * patch.height, grid.x * patch.width, channels)
    first = frames[:1].mean(axis=1).astype(patches_LP.dtype)
    rest = frames[1:].reshape(-1, *frames.shape[2:])
    if isinstance(patches_LP, np.ndarray):
        return np.concatenate([first, rest])
    import jax.numpy as jnp

    return jnp.concatenate([first, rest])


def patch_positions(grid: Grid, patch: Patch, fps: float) -> np.ndarray:
    """Rotary positions of every patch.

    Returns:
      positions_L3 float32: time in seconds times `REFERENCE_RATE` (group g ends with frame g * patch.time, so it
      stands at that frame's time), row and column in patches.
    """
    t, y, x = (np.arange(n, dtype=np.float32) for n in grid)
    out = np.empty((*grid, 3), np.float32)
    out[..., 0] = (t * np.float32(patch.time / fps * REFERENCE_RATE))[:, None, None]
    out[..., 1] = y[:, None]
    out[..., 2] = x
    return out.reshape(-1, 3)
