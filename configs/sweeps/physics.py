"""Sizes times learning rates on the balls: eight short runs, about six minutes on two cores.

Build the data first: python -m data_pipelines.build --source=physics --out=data/physics
Expect the larger model to be better at every rate, and the best rate to be the same for both (muP).
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
