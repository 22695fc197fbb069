"""What a run writes of its steps while it trains: position, metrics, heartbeat, progress bar."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable
from typing import Any

import jax

from vdit.command.progress_bar import COMPILING, ProgressBar
from vdit.io.formatting import count, duration
from vdit.io.prefetch import Prefetcher
from vdit.parallel import peers
from vdit.training.record.heartbeat import Heartbeat
from vdit.training.record.metrics import MetricWriter
from vdit.training.recovery.checkpoint import Position
from vdit.training.recovery.rollback import Diverged, first_skipped_row
from vdit.training.run import Trainable
from vdit.training.timing import StepClock

COUNTS = ("patches", "text", "examples")


class Progress(contextlib.ExitStack):
    """Accounts for the steps of a run. Metrics of a step are fetched after the next is dispatched (`dispatched`).

    Args:
      run: whose position it moves on.
      start: where this attempt began.
      batches: that the steps take, for the share of time spent waiting for them.
      progress: called with each row of metrics.
    """

    def __init__(
        self,
        run: Trainable,
        start: Position,
        batches: Prefetcher[Any],
        progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        super().__init__()
        self._run, self._start, self._progress = run, start, progress
        self._steps, self._per_step = run.config.train.steps, run.config.data.rows_per_step
        self._in_flight: tuple[dict[str, jax.Array], float] | None = None
        self._writer = None
        if jax.process_index() == 0:
            self._writer = self.enter_context(contextlib.closing(MetricWriter(run.workdir, start.step, run.config)))
        self._clock = StepClock(run, batches, earlier=self._writer.last if self._writer else None)
        self._heart = Heartbeat(run.workdir, self._steps)
        note = COMPILING if start.step < self._steps else ""
        bar = ProgressBar(run.workdir.name, "step", self._steps, done=start.step, note=note, lines=False)
        self._bar = self.enter_context(bar)
        if note:
            self._say(note)
        if self._stage_begins(first_skipped_row(start), start.next_row):
            run.position.spikes.reset()

    def dispatched(self, metrics: dict[str, jax.Array], rate: float) -> None:
        """Accounts for the step before, and keeps the metrics of the one that the devices now work on."""
        self.settle()
        self._in_flight = metrics, rate

    def settle(self) -> None:
        """Accounts for the step that was dispatched last; waits for it.

        Raises:
          Diverged: if bad steps repeat, or the last one of the run is not finite.
        """
        if self._in_flight is None:
            return
        (metrics, rate), self._in_flight = self._in_flight, None
        run, position, config = self._run, self._run.position, self._run.config.train
        values = {name: float(value) for name, value in metrics.items()}
        row = self._move_on(values)
        loss, norm = values["loss"], values["grad_norm"]
        self._clock.step()
        speed = self._clock.speed()
        self._bar.advance(note=f"loss {loss:.4g}, {count(speed['tokens_per_second'])} tokens/s")
        self.heartbeat("training", loss, steps_per_second=1 / self._clock.seconds_per_step)
        bad = position.spikes.update(position.step, row, loss, norm, config.spike)
        if bad and self._writer:
            where = f"step {position.step} of {run.workdir}, rows {row} to {position.next_row}"
            self._bar.write(f"warning: {where}, has loss {loss:.4g} and gradient norm {norm:.4g}", file=sys.stderr)
        if self._stage_begins(row, position.next_row):
            position.spikes.reset()
        logged = bad or position.step % config.log_every == 0 or position.step == self._steps
        if logged:
            more = {"skipped_updates": position.spikes.skipped_updates, "rate": rate}
            self._record({**values, **more, **speed})
        if logged or position.step == self._start.step + 1:  # the first step waited for compilation
            self._clock.lap()
        if position.spikes.out_of_patience or (position.step == self._steps and not math.isfinite(loss)):
            raise Diverged(position, self._start)

    def evaluation(self, evaluate: Any, record: bool = True) -> dict[str, Any]:
        """Evaluates the run; records what is found as a row of metrics."""
        step = self._run.position.step
        if record:
            self.heartbeat("evaluating")
            peers.doing("evaluating", step)
        with self._clock.paused():
            self._bar.show("evaluating")
            self._run.export()
            found = evaluate(self._run)
        self._clock.lap()
        images = found.pop("images", {})
        if record:
            self._record({"validation": found})
            if self._writer:
                self._writer.add_images(step, images)
        return found

    def outside_steps(self) -> contextlib.AbstractContextManager[None]:
        """What happens within, such as a save, is no part of a step."""
        return self._clock.paused()

    def heartbeat(self, state: str, loss: float | None = None, **values: Any) -> None:
        """Says that the run is alive, see `Heartbeat.beat`."""
        self._heart.beat(state, self._run.position.step, loss, **values)

    def clock(self) -> dict[str, float]:
        """Seconds spent in this attempt, and the share of them spent waiting for batches."""
        return {name: value for name, value in self._clock.report().items() if name in ("seconds", "data_wait")}

    def _move_on(self, values: dict[str, float]) -> int:
        """Moves the position past a step, by the counts among its metrics, which it takes out; its first row."""
        position = self._run.position
        row = position.next_row
        position.step += 1
        position.next_row += self._per_step
        for name in COUNTS:
            setattr(position, name, getattr(position, name) + int(values.pop(name, 0)))
        position.attention_pairs += values.pop("attention_pairs", 0.0)
        return row

    def _stage_begins(self, first: int, end: int) -> bool:
        """Whether a stage of the data begins in these rows."""
        return any(first < stage.step * self._per_step <= end for stage in self._run.config.data.stages)

    def _record(self, values: dict[str, Any]) -> None:
        run, position = self._run, self._run.position
        counts = {name: getattr(position, name) for name in COUNTS}
        values = {"step": position.step, **values, **counts, "flops": run.training_flops, **self._clock.report()}
        if self._writer:
            self._writer.write(values)
        if self._progress:
            self._progress(values)
        kind, loss = "train", values.get("loss")
        if "validation" in values:
            kind, loss = "validation", values["validation"]["loss"]
        said = [f"{kind} loss {loss:.4f}"]
        if "tokens_per_second" in values:
            said.append(f"{count(values['tokens_per_second'])} tokens/s")
        if position.step < self._steps:
            left = (self._steps - position.step) * self._clock.seconds_per_step
            said.append(f"{duration(left)} left")
        self._say(", ".join(said))

    def _say(self, what: str) -> None:
        """Prints a line about the run where there is no terminal for a bar."""
        if self._bar.is_off and self._writer:
            print(f"{self._run.workdir.name} step {self._run.position.step}/{self._steps} {what}", flush=True)
