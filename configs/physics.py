"""Gliding balls in three colours: text, a first frame or the first three frames to video.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
configs/modes.py trains a model for every way to prompt.
"""

from ml_collections import ConfigDict

from configs import balls


def get_config() -> ConfigDict:
    config = ConfigDict(balls.recipe(text=0.4, first_frame=0.1, two_groups=0.5))
    config.data.path = "data/physics"
    config.diffusion.shift, config.diffusion.given_shift = (
        4.0,
        2.5,
    )  # where a ball of a caption goes is decided near t = 1
    config.model = ConfigDict({"width": 48, "depth": 2, "head_width": 24})
    config.optimizer.cooldown = 800
    config.train.steps = 4000
    return config
