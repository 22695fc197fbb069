"""Gliding balls in three colours: text, a first frame or the first three frames to video.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
configs/modes.py trains a model for every way to prompt.
"""

from ml_collections import ConfigDict

from configs import balls


def get_config() -> ConfigDict:
    return balls.captioned({"width": 64, "depth": 2, "head_width": 32}, 4000, text=0.4, first_frame=0.1, two_groups=0.5)
