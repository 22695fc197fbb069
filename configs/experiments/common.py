"""What the experiments on the balls share: data, sizes, the unit of compute, and the base of configs/balls.py."""

from __future__ import annotations

from typing import Any

from configs import balls
from launch.sweeps.grid import size, size_name

PHYSICS = ("data_pipelines.build", "--source=physics", "--limit=12000")
"""The data set of `make study`: 12,000 clips."""
SIZES = {"XS": size(16), "S": size(24), "M": size(32), "L": size(48), "XL": size(64)}
LIMITS = (
    "Simulated balls: nothing here says that larger models on natural video do the same.",
    "Settings were not tuned for each arm; one rule for rate and batch holds for all of them.",
)
"""Of all of them."""
UNIT = 1.5e11
"""Training FLOPs that are called 1x."""


def sizes(*widths: int) -> dict[str, dict[str, Any]]:
    """Sizes of two blocks by name: {"w8d2": ...}."""
    return {size_name(fields): fields for fields in map(size, widths)}


def base(**modes: float) -> dict[str, Any]:
    """The nested config that runs start from; `modes` are shares of the ways to prompt, those of the study if none."""
    config = balls.base()
    if modes:
        config["diffusion"]["modes"] = modes
    return config
