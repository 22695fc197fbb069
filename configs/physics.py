"""Text and given frames to video on the simulated balls; about 2 minutes on 2 cores.

Expect a validation loss of ... (see docs/study.md).
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    return ConfigDict(
        {
            "seed": 0,
            "data": {"path": "data/physics", "row_tokens": 2048, "rows_per_step": 2, "row_text": 512},
            "model": {"width": 64, "depth": 3, "head_width": 32},
            "optimizer": {"learning_rate": 3e-3, "cooldown": 100},
            "train": {"steps": 500, "evaluate_every": 0, "checkpoint_every": 200},
        }
    )
