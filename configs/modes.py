"""Gliding and bouncing balls with every way to prompt: text, frames and clips at either end, boxes, references.

Build the data first: python -m data_pipelines.build --source=physics --world=coloured --patch=2,4,4 --out=data/physics
weights/balls holds this run: the model to try the flags of vdit.sample with.
"""

from ml_collections import ConfigDict

from configs import balls

MODES = {
    **{"text": 0.3, "first_frame": 0.1, "two_groups": 0.25, "head": 0.05, "tail": 0.05, "last_frame": 0.05},
    **{"first_last": 0.05, "connect": 0.05, "box": 0.05, "reference": 0.05},
}


def get_config() -> ConfigDict:
    config = ConfigDict(balls.recipe(**MODES))
    config.data.path = "data/physics"
    config.model = ConfigDict({"width": 64, "depth": 3, "head_width": 32})
    config.diffusion.forcing = 0.1
    config.optimizer.cooldown = 4000
    config.train.steps = 16000
    return config
