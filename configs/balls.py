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


GLIDING = ("--source=physics", "--world=uniform", "--patch=2,4,4", "--text_encoder=none", "--limit=20000")
"""Flags of the build of one red ball that glides: the world that models of this size learn."""


def recipe() -> dict[str, Any]:
    """The nested config of runs that learn motion from two given groups, on a CPU.

    Against `base`: Muon for the matrices, times so late that only the given frames tell what comes next,
    inputs at unit variance, 96 numbers a patch.
    """
    return {
        "seed": 0,
        "data": {"row_tokens": 200, "row_text": 8, "row_examples": 10, "rows_per_step": 2},
        "diffusion": {"logit_mean": 1.0, "given_shift": 10.0, "input_std": -1.0, "modes": {"two_groups": 1.0}},
        "optimizer": {"method": "muon", "learning_rate": 8e-3, "warmup": 50},
        "train": {"log_every": 50, "checkpoint_every": 1000, "keep": 1},
    }
