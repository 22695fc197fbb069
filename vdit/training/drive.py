"""Driving a run, whatever it trains: steps, checkpoints, metrics and evaluations. Exactly resumable after any step."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np
from etils import epath
from tqdm import tqdm

from vdit.config import Config
from vdit.io.prefetch import Ahead
from vdit.parallel import peers
from vdit.parallel.preemption import Preempted, notice
from vdit.training.checkpoint import Checkpoints, Position, set_aside
from vdit.training.divergence import Diverged, passed_over_from
from vdit.training.heartbeat import Heartbeat
from vdit.training.metrics import MetricWriter
from vdit.training.optimizer import learning_rate
from vdit.training.step import TrainState
from vdit.training.watch import STRIKES

AHEAD = 6
"""Batches that wait on the devices for the step that takes them."""


class Driven(Protocol):
    """A run that can be driven: its state and position are replaced as it goes on."""

    config: Config
    workdir: epath.Path
    state: TrainState
    position: Position

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far."""
        ...


def drive(
    run: Driven,
    batches: Iterator[Any],
    step_function: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    evaluate: Callable[[], dict[str, Any]],
    rows_per_step: int,
    progress: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Takes steps to config.train.steps from where the run is.

    Args:
      run: the run; config.train and config.optimizer say when what is done.
      batches: of its next steps, on the devices; a thread takes them, up to `AHEAD` before their step.
      step_function: (state, batch, rate) -> (state, metrics); metrics has "loss" and "grad_norm", and may have what
        `Position` counts.
      evaluate: what is recorded under "validation"; has "loss".
      rows_per_step: by which the position in the data grows.
      progress: called with each row of metrics.

    Returns:
      Totals of the run, and under "validation" its final evaluation (if config.train.evaluate_every >= 0).

    Raises:
      UserError: if a checkpoint cannot be written.
      Diverged: if bad steps repeat, or the last one is not finite.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    with contextlib.ExitStack() as cleanup:
        return _drive(run, batches, step_function, evaluate, rows_per_step, progress, cleanup)


def _drive(
    run: Driven,
    batches: Iterator[Any],
    step_function: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
    evaluate: Callable[[], dict[str, Any]],
    rows_per_step: int,
    progress: Callable[[dict[str, Any]], None] | None,
    cleanup: contextlib.ExitStack,
) -> dict[str, Any]:
    config, steps = run.config, run.config.train.steps
    writer = None
    if jax.process_index() == 0:
        writer = cleanup.enter_context(contextlib.closing(MetricWriter(run.workdir, run.position.step)))
    start = copy.deepcopy(run.position)
    set_aside(run.workdir, start.step)
    checkpoints = cleanup.enter_context(Checkpoints(run.workdir, config.train))
    ahead = Ahead(batches, AHEAD)
    cleanup.callback(ahead.close)
    clock = _Clock(ahead)
    heart = Heartbeat(run.workdir, steps)
    stop = cleanup.enter_context(notice())
    quiet = not sys.stderr.isatty()
    bar = cleanup.enter_context(
        tqdm(total=steps, initial=run.position.step, unit="step", disable=quiet, desc=run.workdir.name)
    )
    final: dict[str, Any] = {}

    def border_in(first: int, end: int) -> bool:
        """Whether a stage of the data begins in these rows."""
        return any(first < stage.step * rows_per_step <= end for stage in config.data.stages)

    if border_in(passed_over_from(start), start.next_row):
        run.position.watch.forget()

    def record(values: dict[str, Any]) -> None:
        counts = {name: getattr(run.position, name) for name in ("patches", "text", "examples")}
        values = {"step": run.position.step, **values, **counts, "flops": run.training_flops, **clock.report()}
        values["started"] = clock.started
        if writer:
            writer.write(values)
        if progress:
            progress(values)
        if bar.disable and writer:
            left = (steps - run.position.step) * clock.seconds_per_step
            kind = "validation" if "validation" in values else "train"
            loss = values["validation"]["loss"] if "validation" in values else values["loss"]
            print(
                f"{run.workdir.name} step {run.position.step}/{steps} {kind} loss {loss:.4f}, {left:.0f} s left",
                flush=True,
            )

    def finish(pending: dict[str, jax.Array], rate: float) -> None:
        """Accounts for a step that was dispatched; called after the next one is, so that fetching does not stall."""
        values = {name: float(value) for name, value in pending.items()}
        position = run.position
        position.step += 1
        row = position.next_row
        position.next_row += rows_per_step
        position.patches += int(values.pop("patches", 0))
        position.text += int(values.pop("text", 0))
        position.examples += int(values.pop("examples", 0))
        position.squares += values.pop("squares", 0.0)
        clock.step()
        bar.update()
        heart.beat("training", position.step, values["loss"], steps_per_second=1 / clock.seconds_per_step)
        bad = position.watch.judge(position.step, row, values["loss"], values["grad_norm"], config.train.spike)
        if bad and writer:
            say = f"warning: step {position.step} of {run.workdir}, rows {row} to {position.next_row}, has loss"
            bar.write(f"{say} {values['loss']:.4g} and gradient norm {values['grad_norm']:.4g}", file=sys.stderr)
        if border_in(row, position.next_row):
            position.watch.forget()
        if bad or position.step % config.train.log_every == 0 or position.step == steps:
            record({**values, "skipped_updates": position.watch.skipped_updates, "rate": rate})
        if position.watch.strikes >= STRIKES or (position.step == steps and not math.isfinite(values["loss"])):
            raise Diverged(position, start)

    pending: tuple[dict[str, jax.Array], float] | None = None
    first, due = run.position.step, False
    for number in range(first, steps):
        _profile(run, number, first, cleanup)
        peers.doing("waiting for data", number)
        batch = next(ahead)
        peers.doing("in a step", number)
        rate = learning_rate(number, steps, config.optimizer)
        state, metrics = step_function(run.state, batch, np.float32(rate))
        run.state = state
        if pending:
            finish(*pending)
        pending = metrics, rate
        done = number + 1
        must = done in config.train.keep_steps or done == steps
        due = due or must or done % config.train.checkpoint_every == 0
        every = config.train.evaluate_every
        look = (done == steps and every >= 0) or (every > 0 and done % every == 0)
        if due or look:
            finish(*pending)
            pending = None
        loss = None
        if look:
            heart.beat("evaluating", done)
            peers.doing("evaluating", done)
            final = {"validation": evaluate()}
            loss = final["validation"]["loss"]
            record(final)
        # After all metrics of the step: a run that goes on from here does not write them again. While steps are bad
        # a checkpoint waits, so that the newest kept are good ones.
        if must or (due and not run.position.watch.strikes):
            peers.doing("saving", done)
            checkpoints.save(run.state, run.position, loss)
            due = False
        if done < steps and stop.reached(done):
            if pending:
                finish(*pending)
            checkpoints.save(run.state, run.position)
            checkpoints.wait()
            heart.beat("preempted", done)
            raise Preempted(done)
    if not final and config.train.evaluate_every >= 0:  # the run had ended before; its evaluation is made again
        final = {"validation": evaluate()}
    checkpoints.wait()
    heart.beat("finished", run.position.step)
    counts = {name: getattr(run.position, name) for name in ("step", "patches", "text", "examples")}
    return {**final, **counts, "flops": run.training_flops, **clock.report()}


def _profile(run: Driven, step: int, first: int, cleanup: contextlib.ExitStack) -> None:
    """Starts and stops the trace of config.train.profile; a run that starts or ends inside it traces what it has."""
    window = run.config.train.profile
    if window and step == max(first, window[0]) < window[1]:
        jax.profiler.start_trace(str(run.workdir / "profile"))
        cleanup.callback(_stop_trace, run)
    if window and step == window[1] > first:
        _stop_trace(run)


def _stop_trace(run: Driven) -> None:
    jax.block_until_ready(run.state)
    with contextlib.suppress(RuntimeError):  # stopped already
        jax.profiler.stop_trace()


class _Clock:
    """Seconds spent in training, and the share of them spent waiting for batches that were not there."""

    def __init__(self, batches: Ahead[Any]) -> None:
        self.started = round(time.time(), 3)
        self._start, self._batches = time.perf_counter(), batches
        self._steps = 0

    def step(self) -> None:
        self._steps += 1

    @property
    def seconds_per_step(self) -> float:
        return (time.perf_counter() - self._start) / max(1, self._steps)

    def report(self) -> dict[str, float]:
        seconds = time.perf_counter() - self._start
        return {"seconds": round(seconds, 3), "data_wait": round(self._batches.waited / seconds, 5)}
