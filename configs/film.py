"""Text to video on the film's shots, in windows of 17 frames at 12 frames/s: the film model of `make study`.

Build the data first: python -m data_pipelines.build --source=film --out=data/film
600 steps buy a mosaic: rough colours of sky and grass where a first frame is given. README.md shows its samples.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "path": "data/film",
                **{"row_tokens": 1024, "row_text": 512, "row_examples": 16, "rows_per_step": 2, "max_frames": 17},
            },
            "model": {"width": 96, "depth": 4, "head_width": 32},
            "diffusion": {
                **{"logit_mean": 0.0, "given_shift": 3.0, "input_std": -1.0},
                "modes": {"text": 0.6, "first_frame": 0.3, "two_groups": 0.1},
            },
            "optimizer": {"method": "muon", "learning_rate": 8e-3, "warmup": 50, "cooldown": 150},
            "train": {"steps": 600, "log_every": 50, "checkpoint_every": 200, "keep": 1},
        }
    )
