"""What the small models of the balls share: rows, times, ways to prompt, optimiser; configs/experiments has sizes."""

from __future__ import annotations

from typing import Any


def base() -> dict[str, Any]:
    """The nested config that their runs start from."""
    return {
        "seed": 0,
        "data": {"row_tokens": 512, "row_text": 128, "row_examples": 20, "rows_per_step": 2},
        "diffusion": {"logit_mean": 1.0, "modes": {"text": 0.2, "first_frame": 0.1, "two_groups": 0.7}},
        "optimizer": {"learning_rate": 8e-3, "warmup": 50},
        "train": {"log_every": 50, "checkpoint_every": 1000, "keep": 1},
    }
