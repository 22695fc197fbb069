"""One red ball that glides on, from two given groups of frames: a model of 60,000 parameters that learns it on a CPU.

Build the data first: python -m data_pipelines.build --source=physics --world=uniform --patch=2,4,4 --text_encoder=none
--limit=2000 --out=data/gliding. It is the base of docs/finetune.md.
"""

from ml_collections import ConfigDict

from configs import balls


def get_config() -> ConfigDict:
    config = ConfigDict(balls.recipe())
    config.data.path = "data/gliding"
    config.model = ConfigDict({"width": 32, "depth": 2, "head_width": 32, "base_width": 32})
    config.optimizer.cooldown = 200
    config.train.steps = 1000
    return config
