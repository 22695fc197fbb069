"""Gliding balls in three colours with every way to prompt: text, frames and clips at either end, boxes.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
weights/balls holds this run: the model to try the flags of vdit.sample with.
"""

from ml_collections import ConfigDict

from configs import balls

MODES = {
    **{"text": 0.3, "first_frame": 0.1, "two_groups": 0.3, "head": 0.05, "tail": 0.05, "last_frame": 0.05},
    **{"first_last": 0.05, "connect": 0.05, "box": 0.05},
}


def get_config() -> ConfigDict:
    config = balls.captioned({"width": 96, "depth": 4, "head_width": 32}, 18000, **MODES)
    # Captions say little of a clip, so that a gradient needs more clips than where frames are given.
    config.data.update({"row_tokens": 800, "row_text": 512, "row_examples": 40})
    return config
