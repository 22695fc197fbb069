"""The film in latents at 112x64, 12 frames/s, in windows of 17 frames, with every way to prompt: weights/film.

Build the data with the shipped autoencoder, or one that configs/film_autoencoder.py has trained anew:

    python -m data_pipelines.build --source=film --autoencoder=causal_vae:weights/film_autoencoder --max_tokens=28 \
        --max_frames=17 --hop=4 --out=data/film-latents

The short run of docs/film.md is its branch at step 200:
--config.train.branch_from=runs/film --config.train.steps=250 --config.optimizer.cooldown=50
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "path": "data/film-latents",
                **{"row_tokens": 960, "row_text": 120, "row_examples": 6, "rows_per_step": 2, "max_frames": 5},
                "captions": ("short",),
            },
            "model": {"width": 192, "depth": 4, "head_width": 32},
            "diffusion": {
                **{"given_shift": 3.0, "input_std": -1.0},
                "modes": {
                    **{"text": 0.35, "first_frame": 0.35, "two_groups": 0.1},
                    **{"head": 0.1, "last_frame": 0.05, "first_last": 0.05},
                },
            },
            "optimizer": {"method": "muon", "learning_rate": 8e-3, "warmup": 50, "cooldown": 450},
            "train": {"steps": 2100, "log_every": 20, "checkpoint_every": 100, "keep": 2, "keep_steps": (200,)},
        }
    )
