"""An iso-FLOP grid on the balls: three budgets, five sizes, one trunk a size with a cool-down branch for each budget.

Build the data first: python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out=data/physics
Then: python -m launch.sweep --sweep=configs/sweeps/isoflop.py --to=local; it prints runs, FLOPs, hours and cost first
(--dry_run: only that). python -m launch.collect sweeps/isoflop writes runs.csv, python -m vdit.scaling.fit fits it.
The rate is one for all sizes (muP), stated at model.base_width and tuned at the smallest: configs/sweeps/mup.py.
"""

from ml_collections import ConfigDict

from configs.experiments.common import sizes
from launch.sweeps.isoflop import isoflop


def get_config() -> ConfigDict:
    experiment = "configs/physics.py"
    return ConfigDict(
        {
            "name": "isoflop",
            "config": experiment,
            "runs": isoflop(
                experiment,
                budgets=(1.5e11, 4.5e11, 1.35e12),
                sizes=tuple(sizes(8, 16, 24, 32, 48).values()),
                seeds=(0,),
                fractions=(1.0,),
                cooldown=0.2,
                trunks=True,
            ),
            "local": {"at_once": 1},
        }
    )
