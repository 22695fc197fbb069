"""Spikes of the loss: which steps are bad, and when there are too many of them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

PATIENCE, FORGIVEN = 5.0, 0.1
"""Bad steps after which a run goes back to a checkpoint, and what a good step takes off their count."""

WARMUP, DECAY, MIN_DEVIATION = 50, 0.98, 0.05
"""Steps before a spike is seen; memory of the mean and variance of log loss; least standard deviation assumed."""


@dataclasses.dataclass
class LossSpikeDetector:
    """Running statistics of the losses. They are saved with the position, so a resumed run finds the same steps bad.

    Attributes:
      seen, mean, variance: good steps, and the running mean and variance of their log loss.
      strikes: bad steps, less what good ones since have made up for.
      skipped_updates: steps whose update was left out, in all.
      bad: [step, first row, loss or None where it was not finite] of the bad steps behind `strikes`.
    """

    seen: int = 0
    mean: float = 0.0
    variance: float = 0.0
    strikes: float = 0.0
    skipped_updates: int = 0
    bad: list[list[Any]] = dataclasses.field(default_factory=list)

    def update(self, step: int, row: int, loss: float, grad_norm: float, deviations: float) -> bool:
        """Adds a step, and returns whether it is bad.

        Args:
          step: its number.
          row: its first row.
          loss, grad_norm: its loss and the norm of its gradient.
          deviations: a log loss this many standard deviations above its mean is bad; 0 = only one that is not finite.
        """
        finite = math.isfinite(loss + grad_norm)
        level = math.log(max(loss, 1e-30)) if finite else 0.0
        bound = self.mean + deviations * max(math.sqrt(self.variance), MIN_DEVIATION)
        if not finite or (deviations and self.seen >= WARMUP and level > bound):
            self.skipped_updates += not finite
            self.strikes += 1
            self.bad.append([step, row, loss if math.isfinite(loss) else None])
            return True
        self.strikes = max(0.0, self.strikes - FORGIVEN)
        if not self.strikes:
            self.bad = []
        if loss > 0:  # 0: a step in which no patch carries loss
            decay = min(DECAY, self.seen / (self.seen + 1))
            self.variance = decay * (self.variance + (1 - decay) * (level - self.mean) ** 2)
            self.mean = decay * self.mean + (1 - decay) * level
            self.seen += 1
        return False

    def reset(self) -> None:
        """Begins the statistics anew: the data has changed, and with it the loss that is usual."""
        self.seen, self.mean, self.variance = 0, 0.0, 0.0

    @property
    def out_of_patience(self) -> bool:
        """Whether there were so many bad steps that the run should go back to a checkpoint."""
        return self.strikes >= PATIENCE
