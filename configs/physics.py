"""Bouncing, falling and colliding balls: text and given frames to video, one of the small models of `make study`.

Build the data first: python -m data_pipelines.build --source=physics --out=data/physics
It is nearly the study's run grid-w32d2-6e+11, in one piece. Expect a validation loss of about 0.039, in about a minute.
"""

from ml_collections import ConfigDict

from configs import balls


def get_config() -> ConfigDict:
    config = ConfigDict(balls.base())
    config.data.path = "data/physics"
    config.model = ConfigDict({"width": 32, "depth": 2, "head_width": 32})
    config.optimizer.cooldown = 220
    config.train.steps = 1100
    return config
