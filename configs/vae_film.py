"""The causal_vae on the film at about 128 rows: 4x8x8 pixels to 16 numbers.

Build the data first: python -m data_pipelines.build --source=film --max_tokens=448 --out=data/film-vae
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "autoencoder",
            "seed": 0,
            "data": {"path": "data/film-vae", "rows_per_step": 8},
            "autoencoder": {"width": 96, "encoder_blocks": 1, "decoder_blocks": 4},
            "optimizer": {"learning_rate": 2e-3, "warmup": 30, "cooldown": 600},
            "train": {"steps": 1500, "log_every": 50, "checkpoint_every": 250},
        }
    )
