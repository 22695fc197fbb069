"""Which patches are given: the one thing in which the modes of generation differ.

A given patch has time 0 and carries no loss. What is given is whole groups of frames, or whole patches of a box.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vdit.config import Modes
from vdit.patches import REFERENCE_RATE, Array

MODES = tuple(field.name for field in dataclasses.fields(Modes))

REFERENCE_GAP = 2.0 * REFERENCE_RATE
"""Rotary time between the end of a clip and a reference picture, and between one such picture and the next: 2 s."""

DRAWS = 4
"""Uniform numbers that `draw_conditioning` needs."""


class Conditioning(NamedTuple):
    """Which patches of an example are given; arrays of any one shape.

    Attributes:
      head, tail: groups given at the start and at the end.
      top, bottom, left, right: rows and columns of patches, top <= row < bottom, outside which all is given.
      away: whether the last group stands outside the clip's time.
    """

    head: Array
    tail: Array
    top: Array
    bottom: Array
    left: Array
    right: Array
    away: Array


def draw_mode(uniform: Array, modes: Modes) -> Array:
    """The mode of each example, an index into `MODES`, by the shares of the mix and `uniform` in [0, 1)."""
    edges = np.cumsum([getattr(modes, name) for name in MODES])[:-1]
    # The last mode that has a share takes what rounding leaves.
    last = max(i for i, name in enumerate(MODES) if getattr(modes, name))
    return jnp.minimum(sum((uniform >= np.float32(edge)).astype(jnp.int32) for edge in edges), last)


def draw_conditioning(mode: Array, draws: Array, grid: Array) -> Conditioning:
    """What is given of each example in its mode, with the numbers of groups and the boxes drawn.

    Args:
      mode: index into `MODES`.
      draws: (..., DRAWS) in [0, 1).
      grid: (..., 3) patch grids.

    Returns:
      int32; of groups at least one is left to generate, so an image has nothing given but outside a box.
    """
    chosen = {name: mode == i for i, name in enumerate(MODES)}
    groups, rows, columns = (grid[..., axis] for axis in range(3))
    some = _up_to(draws[..., 0], groups - 1)
    heads = {
        "first_frame": 1,
        "two_groups": 2,
        "head": some,
        "first_last": 1,
        "connect": _up_to(draws[..., 0], groups - 2),
    }
    head = sum(jnp.where(chosen[name], count, 0) for name, count in heads.items())
    head = jnp.clip(head, 0, jnp.maximum(groups - 1, 0))
    room = jnp.maximum(groups - 1 - head, 0)
    tails = {"tail": some, "last_frame": 1, "first_last": 1, "connect": _up_to(draws[..., 1], room), "reference": 1}
    tail = jnp.minimum(sum(jnp.where(chosen[name], count, 0) for name, count in tails.items()), room)
    top, bottom = _interval(draws[..., 0], draws[..., 1], rows)
    left, right = _interval(draws[..., 2], draws[..., 3], columns)
    box = chosen["box"]
    return Conditioning(
        head,
        tail,
        jnp.where(box, top, 0),
        jnp.where(box, bottom, rows),
        jnp.where(box, left, 0),
        jnp.where(box, right, columns),
        chosen["reference"] & (tail > 0),
    )


def any_given(given: Conditioning, grid: Array) -> Array:
    """Whether anything of an example is given."""
    open_area = (given.bottom - given.top) * (given.right - given.left)
    return (given.head + given.tail > 0) | (open_area < grid[..., 1] * grid[..., 2])


def given_patches(given: Conditioning, grid: Array, token: Array) -> Array:
    """True for patches that are given.

    Args:
      given: of each slot's example.
      grid: (..., 3) of each slot's example.
      token: index of the patch within its example.
    """
    group, row, column = _place(grid, token)
    outside = (row < given.top) | (row >= given.bottom) | (column < given.left) | (column >= given.right)
    return (group < given.head) | (group >= grid[..., 0] - given.tail) | outside


def reference_shift(given: Conditioning, grid: Array, token: Array) -> Array:
    """What to add to the rotary times of an example's patches: `REFERENCE_GAP` for a last group that is away."""
    group, _, _ = _place(grid, token)
    return jnp.where(given.away & (group == grid[..., 0] - 1), REFERENCE_GAP, 0.0)


def _place(grid: Array, token: Array) -> tuple[Array, Array, Array]:
    """Group, row and column of a patch."""
    columns = jnp.maximum(grid[..., 2], 1)
    frame = jnp.maximum(grid[..., 1] * columns, 1)
    return token // frame, token % frame // columns, token % columns


def _up_to(uniform: Array, most: Array) -> Array:
    """An even draw from 1 ... most; 0 if most is."""
    return jnp.minimum(1 + (uniform * most).astype(jnp.int32), jnp.maximum(most, 0))


def _interval(uniform: Array, other: Array, size: Array) -> tuple[Array, Array]:
    """An interval of 1 ... size places within size."""
    length = _up_to(uniform, size)
    start = jnp.minimum((other * (size - length + 1)).astype(jnp.int32), size - length)
    return start, start + length


def of_example(given: Conditioning, example_BL: jax.Array) -> Conditioning:
    """What is given of each slot's example, from what is given of each example."""
    return Conditioning(*(jnp.take_along_axis(value, example_BL, axis=1) for value in given))
