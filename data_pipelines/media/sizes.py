"""How a clip's size is fitted to the patch grid: aspect kept, rounded to whole patches, only scaled down to a limit."""

from __future__ import annotations

import math
from collections.abc import Iterator

from vdit.patches import Patch

KEEP = 0.75
"""A size may use this share of the tokens that the largest possible one uses, if its aspect ratio is nearer."""


def fit_size(height: int, width: int, patch: Patch, max_tokens: int = 0) -> tuple[int, int]:
    """The size at which a clip is stored.

    Both sides are scaled by one factor of at most 1 and rounded to whole patches, so each changes by at most half a
    patch beside that scaling. Of the sizes with at most `max_tokens` patches those near the limit are looked at
    (see `KEEP`); the nearest aspect ratio wins, then the larger size.

    Args:
      height, width: size of the source in pixels.
      patch: extent of a patch in pixels.
      max_tokens: most spatial patches (rows times columns of one frame group); 0 = no limit.

    Returns:
      (height, width) in pixels.

    Raises:
      ValueError: if the source is smaller than half a patch, or too long and thin for the limit.
    """
    if height * 2 < patch.height or width * 2 < patch.width:
        raise ValueError(f"{width}x{height} is smaller than half a patch of {patch.width}x{patch.height}")
    full = (_round(height / patch.height), _round(width / patch.width))
    if not max_tokens or full[0] * full[1] <= max_tokens:
        return full[0] * patch.height, full[1] * patch.width
    grids = [grid for grid in _reachable(height / patch.height, width / patch.width) if math.prod(grid) <= max_tokens]
    if not grids:
        raise ValueError(f"{width}x{height} is too long and thin to be scaled to {max_tokens} tokens")
    largest = max(math.prod(grid) for grid in grids)

    def badness(grid: tuple[int, int]) -> tuple[float, int]:
        error = aspect_change((height, width), (grid[0] * patch.height, grid[1] * patch.width))
        return round(abs(math.log(error)), 9), -math.prod(grid)  # rounded: equal errors must compare equal

    best = min((grid for grid in grids if math.prod(grid) >= KEEP * largest), key=badness)
    return best[0] * patch.height, best[1] * patch.width


def aspect_change(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Aspect ratio (width / height) after over before, of two sizes (height, width)."""
    return (after[1] * before[0]) / (after[0] * before[1])


def _reachable(rows: float, columns: float) -> Iterator[tuple[int, int]]:
    """All (round(s * rows), round(s * columns)) for scales 0 < s <= 1, where both are at least 1."""
    for y in range(1, _round(rows) + 1):
        low, high = (y - 0.5) / rows, min(1.0, (y + 0.5) / rows)
        for x in range(max(1, _round(low * columns)), _round(high * columns) + 1):
            yield y, x


def _round(value: float) -> int:
    """Nearest integer, halves up (Python rounds them to even, which is uneven in s)."""
    return math.floor(value + 0.5)
