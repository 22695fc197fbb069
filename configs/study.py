"""The study of `make study`: bouncing balls at three budgets and a held-out one, and a text-to-video model of a film."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    base = {
        "seed": 0,
        "data": {"row_tokens": 1024, "row_text": 256, "row_examples": 40, "rows_per_step": 2},
        "diffusion": {"text": 0.3, "first_frame": 0.2, "two_groups": 0.5},
        "optimizer": {"learning_rate": 3e-3, "warmup": 50},
        "train": {"log_every": 50, "checkpoint_every": 400, "keep": 1},
    }
    film = {
        "seed": 0,
        "data": {"row_tokens": 1024, "row_text": 512, "row_examples": 16, "rows_per_step": 2, "max_frames": 17},
        "model": {"width": 128, "depth": 4, "head_width": 32},
        "diffusion": {"text": 0.6, "first_frame": 0.3, "two_groups": 0.1},
        "optimizer": {"learning_rate": 3e-3, "warmup": 50, "cooldown": 100},
        "train": {"steps": 600, "log_every": 50, "checkpoint_every": 200, "keep": 1},
    }
    return ConfigDict(
        {
            # (width, depth, head width)
            "sizes": ((32, 2, 32), (48, 3, 24), (64, 4, 32), (96, 6, 32)),
            "budgets": (2.5e11, 1e12, 4e12),
            "held_out": 8e12,
            "full_held_out": 1.6e13,
            "cooldown": 0.2,
            "clips": 48,
            "base": base,
            "film": film,
        }
    )
