"""Sizes times learning rates on the balls: eight short runs.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
"""

from ml_collections import ConfigDict

from launch.sweeps.grid import over, product, zipped


def get_config() -> ConfigDict:
    sizes = zipped(over("model.width", 16, 32), over("model.head_width", 16, 32))
    return ConfigDict(
        {
            "name": "physics",
            "config": "configs/physics.py",
            "runs": product(sizes, over("optimizer.learning_rate", 2e-3, 4e-3, 8e-3, 1.6e-2), over("train.steps", 400)),
            "local": {"at_once": 1},
        }
    )
