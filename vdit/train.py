"""Trains a model: `python -m vdit.train --config=configs/physics.py --workdir=W [--config.a.b=v]`.

Exit status: 0 the run is finished and result.json written, also if it was asked to stop in its last step; 2 a mistake,
told in one line; 75 asked to stop by SIGTERM and a checkpoint saved; 69 another process of the run is gone or hangs; 74
storage failed. After any end the same command goes on from the newest checkpoint.

With --check nothing is trained: the first step is compared with plain paths on the CPU (vdit/diagnostics/check.py);
status 1 says that it differs.

Configs are code: a file given to --config is run, so give none that you have not read.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from absl import flags
from etils import epath

from vdit import config_flag
from vdit.command import no_arguments, run_main
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError

CONFIG = config_flag.define("config", "The experiment, a Python file with get_config().", "configs/physics.py")
START_SPREAD = 600
"""Seconds before this process's start in which another may have been started and still be of the same attempt."""

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: its checkpoints, metrics and config.")
CHECK = flags.DEFINE_bool("check", False, "Compare the first step with plain paths on the CPU instead of training.")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("--config=configs/X.py and --workdir=W are both needed")
    config = build(CONFIG.value.to_dict(), Config)
    from vdit.parallel import peers
    from vdit.parallel.runtime import cpu_devices_for, initialise, process_count, process_index

    count, index, started = process_count(), process_index(), time.time()
    if count > 1 and index is not None:
        peers.announce(WORKDIR.value, index)
    recent = started - START_SPREAD
    initialise(cpu_devices_for(config), missing=lambda: peers.missing(WORKDIR.value, count, recent))
    import jax

    from vdit.diagnostics.check import check
    from vdit.exit_status import NUMERICS, PREEMPTED
    from vdit.io.files import write_json
    from vdit.parallel.preemption import Preempted, notice
    from vdit.scaling.runs import result_row
    from vdit.training.autoencoder import train_autoencoder
    from vdit.training.loop import train

    if CHECK.value:
        with peers.Peers(WORKDIR.value):
            if off := check(config, WORKDIR.value):
                print(f"error: {off}", file=sys.stderr)
                sys.exit(NUMERICS)
        return
    with notice() as stop:  # until all is written: a run that is asked to stop in its last step finishes
        try:
            with peers.Peers(WORKDIR.value):
                result = (train_autoencoder if config.task == "autoencoder" else train)(config, WORKDIR.value)
        except Preempted as stopped:
            print(f"{WORKDIR.value}: {stopped}", flush=True)
            sys.exit(PREEMPTED)
        if jax.process_index() == 0:
            write_json(epath.Path(WORKDIR.value) / "result.json", result_row(config, result))
            print(f"{WORKDIR.value}: {summary(result)}{'; asked to stop, but finished first' if stop.asked else ''}")


def summary(result: dict[str, Any]) -> str:
    """What a run ended with, in a line."""
    loss = f", validation loss {result['validation']['loss']:.4f}" if "validation" in result else ""
    return f"step {result['step']}, {result['flops']:.3g} FLOPs{loss}"


if __name__ == "__main__":
    run_main(main)
