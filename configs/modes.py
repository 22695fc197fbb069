"""Bouncing balls with every way to prompt: text, frames and clips at either end, boxes, references; diffusion forcing.

Build the data first: python -m data_pipelines.build --source=physics --out=data/physics
This is the model to try the flags of vdit.sample with. Expect a validation loss of about 0.025 after 1.3e13 FLOPs:
some eight minutes on two quiet cores.
"""

from ml_collections import ConfigDict

from configs import balls


def get_config() -> ConfigDict:
    config = ConfigDict(balls.base())
    config.data.path = "data/physics"
    config.model = ConfigDict({"width": 96, "depth": 2, "head_width": 32})
    config.diffusion.modes = ConfigDict(
        {
            **{"text": 0.35, "first_frame": 0.1, "two_groups": 0.1, "head": 0.1, "tail": 0.05, "last_frame": 0.05},
            **{"first_last": 0.05, "connect": 0.1, "box": 0.05, "reference": 0.05},
        }
    )
    config.diffusion.forcing = 0.1
    config.optimizer.cooldown = 1000
    config.train.steps = 5000
    return config
