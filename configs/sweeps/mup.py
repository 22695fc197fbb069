"""Learning rates at widths 16 to 128 on the balls: 20 short runs.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
Then: python -m launch.sweep --sweep=configs/sweeps/mup.py --to=local && python -m launch.collect sweeps/mup &&
python -m vdit.mup --runs=sweeps/mup/runs.csv --out=docs/figures/mup-rate
"""

from ml_collections import ConfigDict

from launch.sweeps.grid import over, point, product, zipped


def get_config() -> ConfigDict:
    sizes = zipped(over("model.width", 16, 32, 64, 128), over("model.head_width", 16, 16, 16, 16))
    rates = over("optimizer.learning_rate", 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    return ConfigDict(
        {
            "name": "mup",
            "config": "configs/physics.py",
            "runs": product(sizes, rates, point({"train.steps": 300, "optimizer.cooldown": 60})),
            "local": {"at_once": 1},
        }
    )
