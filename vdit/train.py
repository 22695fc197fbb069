"""Trains a model: `python -m vdit.train --config=configs/physics.py --workdir=W [--config.a.b=v]`."""

from __future__ import annotations

from absl import flags
from ml_collections import config_flags

from vdit.config import Config, UserError, build, run_main

CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, a Python file with get_config().")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: its checkpoints, metrics and config.")


def main(argv: list[str]) -> None:
    del argv
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("--config=configs/X.py and --workdir=W are both needed")
    config = build(CONFIG.value.to_dict(), Config)
    from vdit.parallel.runtime import initialise

    initialise(cpu_devices=0)
    from vdit.training.loop import train

    result = train(config, WORKDIR.value)
    print(f"{WORKDIR.value}: step {result['step']}, validation loss {result['validation']['loss']:.4f}")


if __name__ == "__main__":
    run_main(main)
