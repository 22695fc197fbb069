"""The causal_vae on the film at 224x128 and 112x64, 4x8x8 pixels to 16 numbers: weights/film_autoencoder.

Build the data first; patches of 16 pixels fit the film to both sizes alike:

    python -m data_pipelines.build --source=film --patch=4,16,16 --max_tokens=112 --out=data/film-224x128
    python -m data_pipelines.build --source=film --patch=4,16,16 --max_tokens=28 --out=data/film-112x64

python -m benchmarks.latents quality measures it on the held-out shots (docs/latents.md).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "autoencoder",
            "seed": 0,
            "data": {"path": "data/film-224x128,data/film-112x64", "rows_per_step": 6},
            "autoencoder": {
                **{"width": 128, "encoder_blocks": 2, "decoder_blocks": 2, "fine_width": 64, "fine_blocks": 2},
                **{"crop": (17, 64, 64), "kl": 1e-4, "edges": 0.02},
            },
            "optimizer": {"learning_rate": 3e-3, "warmup": 50, "cooldown": 800},
            "train": {"steps": 2200, "log_every": 20, "checkpoint_every": 100, "keep": 1},
        }
    )
