"""What the experiments on the balls share: rows, optimiser and sizes are those of `make study`."""

from __future__ import annotations

from typing import Any

from configs import study

PHYSICS = ("data_pipelines.build", "--source=physics", "--limit=12000")
"""The data set of `make study`: 12,000 clips."""
SIZES = {
    "XS": {"model.width": 16, "model.depth": 2, "model.head_width": 16},
    "S": {"model.width": 24, "model.depth": 2, "model.head_width": 24},
    "M": {"model.width": 32, "model.depth": 2, "model.head_width": 32},
    "L": {"model.width": 48, "model.depth": 2, "model.head_width": 24},
    "XL": {"model.width": 64, "model.depth": 2, "model.head_width": 32},
}
UNIT = 1.5e11
"""Training FLOPs that are called 1x."""


def base(**modes: float) -> dict[str, Any]:
    """The nested config that runs start from; `modes` are shares of the ways to prompt, those of the study if none."""
    config = study.get_config().base.to_dict()
    config["train"] = {"log_every": 50, "checkpoint_every": 1000, "keep": 1}
    if modes:
        config["diffusion"]["modes"] = modes
    return config
