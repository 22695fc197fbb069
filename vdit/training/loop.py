"""The training loop: batch, step, metrics, evaluation, checkpoint. Exactly resumable after any step."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from etils import epath

from vdit.config import Config
from vdit.data import TrainingData
from vdit.errors import UserError
from vdit.io.prefetch import Prefetcher
from vdit.parallel import peers
from vdit.parallel.mesh import make_mesh, row_reader, row_shards, to_global, use_mesh
from vdit.parallel.preemption import Preempted, notice
from vdit.training.autoencoder.run import open_autoencoder
from vdit.training.optimization.optimizer import learning_rate
from vdit.training.profile import profiled
from vdit.training.progress import Progress
from vdit.training.record import workdir as workdirs
from vdit.training.record.account import time_account
from vdit.training.record.metrics import read_metrics
from vdit.training.record.writer import one_run
from vdit.training.recovery.checkpoint import Checkpoints, set_aside
from vdit.training.recovery.rollback import skip_batches, train_with_rollback
from vdit.training.run import Trainable, complete_config, open_run

AHEAD = 6
"""Batches that wait on the devices for the step that takes them."""

Evaluate = Callable[[Any], dict[str, Any]]
"""From a `Trainable` to what is recorded under "validation"; has "loss"."""


def train(
    config: Config,
    workdir: epath.PathLike,
    data: TrainingData,
    evaluate: Evaluate | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Trains to config.train.steps, resuming from the newest checkpoint if there is one.

    Args:
      config: the run.
      workdir: where its checkpoints and metrics are; must be empty or of the same run.
      data: what it is trained on.
      evaluate: how it is validated; None = not, and then train.evaluate_every must be -1.
      progress: called with each row of metrics.

    Returns:
      Totals of the run, and under "validation" its final evaluation (if config.train.evaluate_every >= 0).

    Raises:
      UserError: if config, data and workdir do not go together, another process trains there, or the run diverges
        again and again.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    with one_run(workdir):
        return _train(config, epath.Path(workdir), data, evaluate, progress)


def _train(
    config: Config,
    workdir: epath.Path,
    data: TrainingData,
    evaluate: Evaluate | None,
    progress: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    mesh = make_mesh(config.mesh)
    require_fit(config, mesh)
    if evaluate is None and config.train.evaluate_every >= 0:
        raise UserError("there is nothing to validate with; set train.evaluate_every=-1")
    if config.task == "diffusion":
        config = complete_config(config, workdir, data)
    workdirs.check(workdir, config, data.meta)

    def attempt() -> dict[str, Any]:
        with use_mesh(mesh):
            run: Trainable
            if config.task == "autoencoder":
                run = open_autoencoder(config, workdir, data, mesh)
            else:
                run = open_run(config, workdir, data.meta, mesh=mesh)
            skip_batches(workdir, run.position)
            return train_loop(run, data, evaluate, progress)

    return train_with_rollback(attempt, workdir, config.train, data.ids)


def require_fit(config: Config, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if the rows of a step cannot be spread over the devices."""
    shards = row_shards(mesh)
    if config.data.rows_per_step % shards:
        raise UserError(
            f"data.rows_per_step={config.data.rows_per_step} is not a multiple of the {shards} row shards of the mesh"
        )


def train_loop(
    run: Trainable,
    data: TrainingData,
    evaluate: Evaluate | None,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Takes steps from where the run is to config.train.steps; arguments and result as of `train`.

    Raises:
      UserError: if a checkpoint cannot be written.
      Diverged: if bad steps repeat, or the last one is not finite.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    config, steps, start = run.config.train, run.config.train.steps, copy.deepcopy(run.position)
    validation: dict[str, Any] | None = None
    with contextlib.ExitStack() as cleanup:
        batches = cleanup.enter_context(_prefetched(run, data))
        take_step, save_due = run.train_step(), False
        if start.step < steps and (trace := getattr(take_step, "trace", None)):
            trace(run.state, batches.peek(), np.float32(0))  # refuses what this platform has no kernel for, say
        workdirs.claim(run.workdir, run.config, data.meta)  # only now: a start that is refused leaves nothing
        report = cleanup.enter_context(Progress(run, start, batches, progress))
        set_aside(run.workdir, start.step)
        checkpoints = cleanup.enter_context(Checkpoints(run.workdir, config))
        profile = cleanup.enter_context(profiled(run))
        stop = cleanup.enter_context(notice())
        for step in range(start.step, steps):
            profile(step)
            peers.doing("waiting for data", step)
            batch = next(batches)
            peers.doing("in a step", step)
            rate = learning_rate(step, steps, run.config.optimizer)
            with jax.profiler.StepTraceAnnotation("train", step_num=step):
                run.state, metrics = take_step(run.state, batch, np.float32(rate))
            report.dispatched(metrics, rate)  # fetches the metrics of the step before, while the devices work

            done, loss = step + 1, None
            must_save = done == steps or done in config.keep_steps
            save_due = save_due or must_save or done % config.checkpoint_every == 0
            every = config.evaluate_every
            evaluates = (done == steps and every >= 0) or (every > 0 and done % every == 0)
            if save_due or evaluates:
                report.settle()
            if evaluates:
                validation = report.evaluation(evaluate)
                loss = validation["loss"]
            # After all metrics of the step: a run that resumes from here does not write them again. While steps are
            # bad a checkpoint waits, so that the newest kept are good ones.
            if must_save or (save_due and not run.position.spikes.strikes):
                peers.doing("saving", done)
                with report.outside_steps():
                    checkpoints.save(run.state, run.position, loss)
                save_due = False
            if done < steps and stop.reached(done):
                report.settle()
                checkpoints.save(run.state, run.position)
                checkpoints.wait()
                report.heartbeat("preempted")
                raise Preempted(done)
        if validation is None and config.evaluate_every >= 0:  # the run had ended before; its evaluation is made again
            validation = report.evaluation(evaluate, record=False)
        elif config.evaluate_every < 0:
            run.export()
        checkpoints.wait()
        report.heartbeat("finished")
        return _totals(run, data, validation, report.clock())


def _totals(run: Trainable, data: TrainingData, validation: Any, clock: dict[str, float]) -> dict[str, Any]:
    position, (body, total) = run.position, run.parameters
    return {
        **({} if validation is None else {"validation": validation}),
        **{name: getattr(position, name) for name in ("step", "patches", "text", "examples")},
        "flops": run.training_flops,
        **clock,
        "params": body,
        "params_total": total,
        **data.account(position.patches, position.examples),
        **time_account(read_metrics(run.workdir)),
    }


@contextlib.contextmanager
def _prefetched(run: Trainable, data: TrainingData) -> Iterator[Prefetcher[Any]]:
    """The batches of the run's next steps on its devices; a thread keeps up to `AHEAD` of them there."""
    first = run.position.next_row // run.config.data.rows_per_step
    rows = data.batches(first, *row_reader(run.mesh))
    batches = Prefetcher((to_global(batch, run.mesh) for batch in rows), AHEAD)
    try:
        yield batches
    finally:
        batches.close()
        if close := getattr(rows, "close", None):
            close()
