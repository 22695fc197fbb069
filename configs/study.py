"""The study of `make study`: bouncing balls at three budgets and a held-out one; a text-to-video model of a film."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    base = {
        "seed": 0,
        "data": {"row_tokens": 512, "row_text": 128, "row_examples": 20, "rows_per_step": 2},
        "diffusion": {"logit_mean": 1.0, "modes": {"text": 0.2, "first_frame": 0.1, "two_groups": 0.7}},
        "optimizer": {"learning_rate": 8e-3, "warmup": 50},
        "train": {"log_every": 50, "checkpoint_every": 1000, "keep": 1},
    }
    film = {
        "seed": 0,
        "data": {"row_tokens": 1024, "row_text": 512, "row_examples": 16, "rows_per_step": 2, "max_frames": 17},
        "model": {"width": 96, "depth": 4, "head_width": 32},
        "diffusion": {"modes": {"text": 0.6, "first_frame": 0.3, "two_groups": 0.1}},
        "optimizer": {"learning_rate": 8e-3, "warmup": 50, "cooldown": 150},
        "train": {"steps": 600, "log_every": 50, "checkpoint_every": 200, "keep": 1},
    }
    return ConfigDict(
        {
            # (width, depth, head width), and the sizes that each budget of training FLOPs is spent on
            "sizes": (
                *((8, 2, 8), (12, 2, 12), (16, 2, 16), (24, 2, 24)),
                *((32, 2, 32), (48, 2, 24), (64, 2, 32), (96, 2, 32)),
            ),
            "grid": ((1.5e11, (0, 1, 2, 3)), (6e11, (1, 2, 3, 4)), (2.4e12, (3, 4, 5, 6, 7))),
            "held_out": 4.8e12,
            # FULL=1 adds this row to the grid and holds out a larger budget
            "full": ((4.8e12, (4, 5, 6, 7)), 1.2e13),
            "cooldown": 0.2,
            "clips": 48,
            "base": base,
            "film": film,
        }
    )
