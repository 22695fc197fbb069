"""What the experiments on the balls share: data, sizes, the unit of compute; the recipe is that of configs/balls.py."""

from __future__ import annotations

from typing import Any

from configs import balls
from launch.sweeps.grid import size, size_name

SIZES = {"XS": size(16), "S": size(24), "M": size(32), "L": size(48), "XL": size(64)}
LIMITS = (
    "Simulated balls in small pictures: nothing here says that larger models on natural video do the same.",
    "Settings were not tuned for each arm; one rule for rate and batch holds for all of them.",
)
"""Of all of them."""
UNIT = 4e10
"""Training FLOPs that are called 1x: the smallest budget of the study, at which a ball is as good as lost."""
COLOURED = balls.clips("coloured", captions=True)
"""One or two balls in three colours that glide or bounce, with captions."""


def sizes(*widths: int) -> dict[str, dict[str, Any]]:
    """Sizes of two blocks by name: {"w8d2": ...}."""
    return {size_name(fields): fields for fields in map(size, widths)}
