"""The causal_vae on the film at 224x128: 4x8x8 pixels to 16 numbers.

Build the data first; patches of 16 pixels make the rows exactly 128:
python -m data_pipelines.build --source=film --patch=4,16,16 --max_tokens=112 --text_encoder=none --out=data/film-vae

python -m benchmarks.latents quality measures it on the held-out shots (docs/latents.md).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "task": "autoencoder",
            "seed": 0,
            "data": {"path": "data/film-vae", "rows_per_step": 6},
            "autoencoder": {"width": 96, "encoder_blocks": 2, "decoder_blocks": 4, "crop": (17, 64, 64)},
            "optimizer": {"learning_rate": 3e-3, "warmup": 30, "cooldown": 600},
            "train": {"steps": 1500, "log_every": 50, "checkpoint_every": 100},
        }
    )
