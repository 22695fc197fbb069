"""The plan: an endless stream of rows, each a list of whole examples, computed from shapes before a pixel is read.

A row is a pure function of (index, seed, config, row number), so the data position of a run is one integer, and any
number of hosts, started anywhere, see the same rows.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.packing.index import Index
from data_pipelines.packing.rows import EpochPlan, RowPlan
from data_pipelines.packing.stage_plan import Source, StagePlan
from vdit.batch import RowShape
from vdit.config import DataConfig, StageConfig
from vdit.errors import UserError
from vdit.patches import Patch


class Plan:
    """An endless stream of rows: the stages of the config one after another, in each epoch after epoch.

    At weight 1 an epoch holds every example within the stage's limits exactly once. Each epoch draws a caption kind for
    every example, takes the next window of every clip longer than max_frames, and packs anew. While an epoch is read,
    a thread plans the next.

    Args:
      index: shapes of the examples.
      config: sizes of the rows, windows, captions, weights and stages.
      patch: extent of a patch.
      seed: of all draws.
      captions: kinds of the index's text columns; None leaves them unnamed, and config.captions must be empty.
      parts: examples of each data set of a mixture; None = one data set.
      latents: clips are latents, whose windows must begin at their first frame.

    Attributes:
      shape: what a row holds.
      stages: the rows of each stage.

    Raises:
      UserError: if the config needs what the data set does not have, or an example cannot fit a row.
    """

    def __init__(
        self,
        index: Index,
        config: DataConfig,
        patch: Patch,
        seed: int,
        captions: Sequence[str] | None = None,
        parts: Sequence[int] | None = None,
        latents: bool = False,
    ) -> None:
        for name in ("row_tokens", "row_examples", "row_text", "rows_per_step", "pack_window"):
            if getattr(config, name) < 1:
                raise UserError(f"data.{name}={getattr(config, name)} must be at least 1")
        if not index.text_tokens.shape[1]:  # a data set without captions: one kind, of no tokens
            index = dataclasses.replace(index, text_tokens=np.zeros((len(index), 1), np.int32))
        self.shape = RowShape(config.row_tokens, config.row_examples, config.row_text)
        self._config = config
        stages = config.stages or (StageConfig(),)
        self._source = Source(index, tuple(parts or (len(index),)), tuple(captions or ()), patch, latents)
        self.stages = tuple(StagePlan(self._source, config, stage, n, seed) for n, stage in enumerate(stages))
        self._starts = [stage.step * config.rows_per_step for stage in stages]  # their first rows

    def row(self, number: int) -> RowPlan:
        """Row `number` >= 0 of the stream; the epoch after it is planned meanwhile, by a thread."""
        n, epoch, k = self.locate(number)
        row = self.stages[n].epoch(epoch).row(k)
        if n + 1 < len(self.stages) and self.first_row(epoch + 1, n) >= self._starts[n + 1]:
            self.stages[n + 1].plan_ahead(0)
        else:
            self.stages[n].plan_ahead(epoch + 1)
        return row

    def locate(self, number: int) -> tuple[int, int, int]:
        """Stage, epoch within it, and row within that; plans the epochs before, whose row counts it depends on."""
        n = bisect.bisect_right(self._starts, number) - 1
        return n, *self.stages[n].locate(number - self._starts[n])

    def first_row(self, epoch: int, stage: int = 0) -> int:
        """Number of the first row of an epoch of a stage, were the stage long enough to reach it."""
        return self._starts[stage] + self.stages[stage].first_row(epoch)

    def epoch(self, number: int, stage: int = 0) -> EpochPlan:
        """The rows of one epoch of a stage."""
        return self.stages[stage].epoch(number)

    def once(self) -> EpochPlan:
        """Every example of the first stage once, at its first window and first kind of caption: for validation."""
        return self.stages[0].once()

    def require_step(self) -> None:
        """Raises UserError if the first epoch of a stage has fewer rows than one step."""
        config = self._config
        for n, stage in enumerate(self.stages):
            if stage.min_rows < config.rows_per_step and (rows := stage.epoch(0).rows) < config.rows_per_step:
                limits = f" within the limits of stage {n}" if config.stages else ""
                raise UserError(
                    f"the {sum(map(len, stage.members))} examples of split {config.split!r} of {config.path}{limits} "
                    f"make {rows} rows, fewer than one step; lower data.rows_per_step={config.rows_per_step} or "
                    f"data.row_tokens={config.row_tokens}"
                )
