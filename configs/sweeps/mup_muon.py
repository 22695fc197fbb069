"""Muon's rates at widths 32 to 256 and depths 2 to 8, on one gliding ball: 30 runs of 80 steps, for `vdit.mup --runs`.

Build the data first, see configs/gliding.py.
Then: python -m launch.sweep --sweep=configs/sweeps/mup_muon.py --to=local && python -m launch.collect sweeps/mup_muon
and: python -m vdit.mup --runs=sweeps/mup_muon/runs.csv --out=docs/figures/mup-muon-rate
The rates of Muon and of AdamW are in one proportion; expect best ones within a factor 1.5, over widths and over depths.
"""

from ml_collections import ConfigDict

from launch.sweeps.grid import over, point, product, zipped

RATES = (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
MUON = 2.5
"""Muon's rate over AdamW's."""


def get_config() -> ConfigDict:
    sizes = zipped(over("model.width", 32, 64, 128, 256, 32, 32), over("model.depth", 2, 2, 2, 2, 4, 8))
    rates = zipped(
        over("optimizer.learning_rate", *RATES), over("optimizer.muon_rate", *(MUON * rate for rate in RATES))
    )
    common = {"model.head_width": 32, "model.base_width": 32, "model.base_depth": 2}
    return ConfigDict(
        {
            "name": "mup_muon",
            "config": "configs/gliding.py",
            "runs": product(sizes, rates, point({**common, "train.steps": 80, "optimizer.cooldown": 20})),
            "local": {"at_once": 1},
        }
    )
