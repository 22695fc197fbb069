"""What the experiments on the balls share: data, sizes, the unit of compute; the recipe is that of configs/balls.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from configs import balls
from launch.experiments.spec import Arm, Figure
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


FIGURES = (
    Figure("flops", ("loss",), "validation loss"),
    Figure("flops", ("velocity_in",), "velocity error, units/s"),
)
"""Loss and velocity error against compute."""


def contrast(
    values: Mapping[str, Mapping[str, Any]], scales: Sequence[tuple[str, float]], group: str = "{}"
) -> list[Arm]:
    """Arms named "VALUE TIMESx", each value at each scale.

    Args:
      values: name -> dotted fields of the config.
      scales: (name of a size, budget in units).
      group: of the figure's lines, with {} for the name of the value.
    """
    return [
        Arm(f"{name} {times}x", {**SIZES[size], **fields}, times * UNIT, group=group.format(name))
        for name, fields in values.items()
        for size, times in scales
    ]
