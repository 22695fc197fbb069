"""Trains a model: `python -m vdit.train --config=configs/physics.py --workdir=W [--config.a.b=v]`.

Exit status: 0 the run is finished and result.json written, also if SIGTERM came in its last step; 2 a mistake, named
in one line; 75 stopped by SIGTERM, with a checkpoint saved; 69 another process of the run is gone or hangs; 74
storage failed. After any end the same command resumes from the newest checkpoint.

With --check nothing is trained: the first step is compared with plain paths on the CPU (vdit/diagnostics/check.py);
status 1 says that it differs.

Configs are code: a file given to --config is run, so give none that you have not read.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable
from typing import Any

from absl import flags
from etils import epath

from vdit.command import config_flag
from vdit.command.run import no_arguments, run_main
from vdit.command.stopping import say
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError

START_SPREAD = 600
"""Seconds before this process's start in which another may have been started and still be of the same attempt."""


def train(
    config: Config, workdir: epath.PathLike, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Trains on the data sets of config.data; arguments and result as of `training.loop.train`."""
    from data_pipelines.reading.mixture import open_data
    from data_pipelines.reading.store import Dataset
    from data_pipelines.reading.training_data import open_training_data
    from vdit.evaluation.reconstruction import evaluate_autoencoder
    from vdit.evaluation.strips import sample_strips
    from vdit.evaluation.validation import evaluate_run
    from vdit.training import loop

    data = open_training_data(config)
    if config.task == "autoencoder":
        clips = open_data(config.data)
        return loop.train(
            config, workdir, data, lambda run: evaluate_autoencoder(run.workdir, clips, config.data.split), progress
        )
    count = config.train.sample_clips
    dataset = Dataset(config.data.paths[0]) if count else None

    def evaluate(run: Any) -> dict[str, Any]:
        found = evaluate_run(run, data.validation)
        return found if dataset is None else {**found, "images": sample_strips(run, dataset, count)}

    return loop.train(config, workdir, data, evaluate, progress)


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.config is None or values.workdir is None:
        raise UserError(
            "--config and --workdir are both needed: "
            f"python -m vdit.train --config=configs/physics.py --workdir={values.workdir or 'runs/physics'}"
        )
    config, workdir = build(values.config.to_dict(), Config), values.workdir
    if values.tracker is not None:
        tracker = ",".join(values.tracker)
        config = dataclasses.replace(config, train=dataclasses.replace(config.train, tracker=tracker))
    from vdit.parallel import peers
    from vdit.parallel.runtime import cpu_devices_for, initialise, process_count, process_index

    count, index, started = process_count(), process_index(), time.time()
    if count > 1 and index is not None:
        peers.announce(workdir, index)
    recent = started - START_SPREAD
    initialise(cpu_devices_for(config), missing=lambda: peers.missing(workdir, count, recent))
    import jax

    from data_pipelines.reading.training_data import open_training_data
    from vdit.command.exit_status import NUMERICS, PREEMPTED
    from vdit.diagnostics.check import check
    from vdit.io.files import write_json
    from vdit.parallel.preemption import Preempted, notice
    from vdit.scaling.runs import result_row
    from vdit.training.record.writer import one_run

    if values.check:
        with peers.Peers(workdir):
            if off := check(config, workdir, open_training_data(config)):
                print(f"error: {off}", file=sys.stderr)
                sys.exit(NUMERICS)
        return
    with notice() as stop:  # until all is written: a run that is to stop in its last step finishes
        try:
            with one_run(workdir):
                with peers.Peers(workdir):
                    result = train(config, workdir)
                if jax.process_index() == 0:
                    write_json(epath.Path(workdir) / "result.json", result_row(config, result))
        except Preempted as stopped:
            say(f"{workdir}: {stopped}")
            sys.exit(PREEMPTED)
        if jax.process_index() == 0:
            say(f"{workdir}: {summary(result)}{'; asked to stop, but finished first' if stop.asked else ''}")


def summary(result: dict[str, Any]) -> str:
    """What a run ended with, in a line."""
    loss = f", validation loss {result['validation']['loss']:.4f}" if "validation" in result else ""
    return f"step {result['step']}, {result['flops']:.3g} FLOPs{loss}"


if __name__ == "__main__":
    config_flag.define("config", "The experiment, a Python file with get_config().", "configs/physics.py")
    flags.DEFINE_string("workdir", None, "Folder of the run: its checkpoints, metrics and config.")
    flags.DEFINE_list("tracker", None, "Where to look at curves: tensorboard, wandb, trackio; sets train.tracker.")
    flags.DEFINE_bool("check", False, "Compare the first step with plain paths on the CPU instead of training.")
    run_main(main)
