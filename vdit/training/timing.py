"""How fast a run trains, and how much of its time went into steps that count."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Any

from vdit.io.prefetch import Prefetcher
from vdit.parallel.peak import peak_rate
from vdit.training.run import Trainable

TIMES = (
    *("seconds", "data_wait", "productive_seconds", "goodput", "began", "started"),
    *("tokens_per_second", "tflops", "mfu"),
)
"""Names of the metrics by which two runs of one config differ: of time, not of what is computed."""


class StepClock:
    """Times the steps of one attempt of a run.

    The first step of an attempt waits for compilation: it counts for no speed, and as lost for the goodput.

    Args:
      run: whose position says what has been done.
      batches: that the steps take, for the time spent waiting for them.
      earlier: the last row of metrics of the attempts before, if there is one.
    """

    def __init__(self, run: Trainable, batches: Prefetcher[Any], earlier: Mapping[str, Any] | None = None) -> None:
        self._run, self._batches = run, batches
        peak, self.peak_source = peak_rate()  # before the clock starts: measuring it takes part of a second on a CPU
        self._peak = peak
        self.started = round(time.time(), 3)
        """Unix time at which the attempt began."""
        self._began = earlier.get("began", self.started) if earlier else self.started
        self._productive = earlier.get("productive_seconds", 0.0) if earlier else 0.0
        self._start = self._mark = time.perf_counter()
        self._first: float | None = None
        self._steps, self._waited = 0, 0.0
        self._window = self._done()

    def step(self) -> None:
        """A step is done, one or more after another since the last call or the end of `paused`."""
        now, waited = time.perf_counter(), self._batches.waited
        if self._first is None:
            self._first = now
        else:
            self._productive += max(0.0, now - self._mark - (waited - self._waited))
        self._steps += 1
        self._mark, self._waited = now, waited

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """What happens within is no part of a step: an evaluation, a save."""
        try:
            yield
        finally:
            self._mark, self._waited = time.perf_counter(), self._batches.waited

    @property
    def seconds_per_step(self) -> float:
        """Wall time of a step, evaluations and saves included; of the first as long as there is no other."""
        now = time.perf_counter()
        if self._first is None or self._steps < 2:
            return now - self._start
        return (now - self._first) / (self._steps - 1)

    def speed(self) -> dict[str, float]:
        """Since `lap`: patches and caption tokens a second, FLOPs a second in 10^12, and their share of the peak."""
        seconds, tokens, flops = (new - old for new, old in zip(self._done(), self._window, strict=True))
        rate = flops / seconds
        return {"tokens_per_second": round(tokens / seconds, 1), "tflops": rate / 1e12, "mfu": rate / self._peak}

    def lap(self) -> None:
        """Speed counts from here."""
        self._window = self._done()

    def report(self) -> dict[str, float]:
        """Times of the attempt, and the goodput: the share of all time since the run began in steps that count.

        Lost are compilation, evaluations, saves, waiting for batches, steps that were made again, and the time between
        two attempts.
        """
        seconds = time.perf_counter() - self._start
        return {
            "seconds": round(seconds, 3),
            "data_wait": round(self._batches.waited / seconds, 5),
            "productive_seconds": round(self._productive, 3),
            "goodput": round(self._productive / max(self.started + seconds - self._began, 1e-9), 5),
            "began": self._began,
            "started": self.started,
        }

    def _done(self) -> tuple[float, float, float]:
        position = self._run.position
        return time.perf_counter(), position.patches + position.text, self._run.training_flops
