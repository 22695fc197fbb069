"""The recipe with which small models learn motion on a CPU, and the worlds of balls that they learn it in."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict


def clips(world: str, limit: int = 20000, captions: bool = False) -> tuple[str, ...]:
    """The command that builds clips of a world of `--source=physics`, without --out; captions need a text encoder."""
    encoder = () if captions else ("--text_encoder=none",)
    return "data_pipelines.build", "--source=physics", f"--world={world}", "--patch=2,4,4", f"--limit={limit}", *encoder


UNIFORM = clips("uniform")
"""One red ball that glides: the easiest world, in which a model of this size learns motion."""
BOUNCE = clips("bounce")
"""One red ball that bounces off the sides, for which going straight on is not enough."""


def recipe(**modes: float) -> dict[str, Any]:
    """The nested config of runs that learn motion on a CPU.

    96 numbers a patch, inputs at unit variance, Muon for the matrices, and times so late that only the given frames
    tell what comes next; configs/experiments/recipe.py takes the parts away one at a time.

    Args:
      **modes: shares of the ways to prompt; none = the first two groups of patches are always given.
    """
    text = "text" in modes
    return {
        "seed": 0,
        "data": {"row_tokens": 200, "row_text": 128 if text else 8, "row_examples": 10, "rows_per_step": 2},
        "diffusion": {
            **{"logit_mean": 1.0, "given_shift": 10.0, "input_std": -1.0},
            "modes": modes or {"two_groups": 1.0},
        },
        "optimizer": {"method": "muon", "learning_rate": 8e-3, "warmup": 50},
        "train": {"log_every": 50, "checkpoint_every": 1000, "keep": 1},
    }


def captioned(size: dict[str, int], steps: int, **modes: float) -> ConfigDict:
    """The config of a run on the balls of three colours with captions.

    Where a ball of a caption goes is decided near t = 1, so times are late for text too.

    Args:
      size: width, depth and head_width of the model.
      steps: length of the run, of which a fifth is the cool-down.
      **modes: shares of the ways to prompt.
    """
    config = ConfigDict(recipe(**modes))
    config.data.path = "data/physics"
    config.diffusion.shift, config.diffusion.given_shift = 4.0, 2.5
    config.model = ConfigDict(size)
    config.train.steps, config.optimizer.cooldown = steps, steps // 5
    return config
