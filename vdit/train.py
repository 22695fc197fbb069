"""Trains a model: `python -m vdit.train --config=configs/physics.py --workdir=W [--config.a.b=v]`.

Exit status: 0 the run is finished and result.json written; 2 a mistake, told in one line; 75 asked to stop by SIGTERM
and a checkpoint saved. After any end the same command goes on from the newest checkpoint.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath
from ml_collections import ConfigDict, config_flags

from vdit.config import Config, UserError, build, no_arguments, run_main

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "The experiment, a Python file with get_config().", lock_config=False, accept_new_attributes=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: its checkpoints, metrics and config.")


class _ConfigFile(flags.ArgumentParser):
    """Loads an experiment and adds the sections it leaves out, so that flags can set fields in them."""

    def __init__(self, load: flags.ArgumentParser):
        self._load = load

    def parse(self, argument: str) -> ConfigDict:
        path = argument.split(":", 1)[0]
        if not Path(path).is_file():
            raise UserError(f"--config={path} is not a file; give one such as configs/physics.py")
        try:
            config = self._load.parse(argument)
        except Exception as error:
            reason = str(error).strip().splitlines()[-1:] or [""]
            raise UserError(f"--config={path} cannot be loaded: {type(error).__name__}: {reason[0]}") from error
        if not isinstance(config, ConfigDict):
            raise UserError(f"--config={path}: get_config() returns {type(config).__name__}, not a ConfigDict")
        for field in dataclasses.fields(Config):
            if dataclasses.is_dataclass(field.default) and field.name not in config:
                config[field.name] = ConfigDict()
        return config


flags.FLAGS["config"].parser = _ConfigFile(flags.FLAGS["config"].parser)


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("--config=configs/X.py and --workdir=W are both needed")
    config = build(CONFIG.value.to_dict(), Config)
    from vdit.parallel.runtime import cpu_devices_for, initialise

    initialise(cpu_devices_for(config))
    import jax

    from vdit.scaling.runs import result_row
    from vdit.training.loop import train
    from vdit.training.preemption import EXIT_STATUS, Preempted
    from vdit.training.workdir import write_json

    try:
        result = train(config, WORKDIR.value)
    except Preempted as stopped:
        print(f"{WORKDIR.value}: {stopped}", flush=True)
        sys.exit(EXIT_STATUS)
    if jax.process_index() == 0:
        write_json(epath.Path(WORKDIR.value) / "result.json", result_row(config, result))
        print(f"{WORKDIR.value}: {summary(result)}")


def summary(result: dict[str, Any]) -> str:
    """What a run ended with, in a line."""
    loss = f", validation loss {result['validation']['loss']:.4f}" if "validation" in result else ""
    return f"step {result['step']}, {result['flops']:.3g} FLOPs{loss}"


if __name__ == "__main__":
    run_main(main)
