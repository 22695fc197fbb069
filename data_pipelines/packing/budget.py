"""How far a budget of steps, tokens or FLOPs goes: epochs, and visits of each data set."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.packing.index import Index
from data_pipelines.packing.packing import Plan
from data_pipelines.packing.rows import EpochPlan
from vdit.config import DataConfig
from vdit.errors import UserError
from vdit.patches import Patch


@dataclasses.dataclass(frozen=True)
class StepSums:
    """What one step holds on average: patches, caption tokens, sum of n^2 over segments, examples."""

    patches: float
    text: float
    squares: float
    examples: float


def step_sums(epoch: EpochPlan, index: Index, rows_per_step: int) -> StepSums:
    """Means over an epoch, counted segment by segment."""
    text = int(epoch.caption_tokens(index).sum(dtype=np.int64))
    squares = float(np.square(epoch.tokens, dtype=np.float64).sum())
    patches = int(epoch.tokens.sum(dtype=np.int64)) - text
    steps = epoch.rows / rows_per_step
    return StepSums(patches / steps, text / steps, squares / steps, len(epoch.examples) / steps)


def unique_data(plan: Plan, index: Index, patch: Patch) -> tuple[int, int]:
    """(patches, examples) of all members of the plan's stages, each once; clips cut to windows count whole."""
    members = np.unique(np.concatenate([part for stage in plan.stages for part in stage.members]))
    groups = 1 + (index.frames[members].astype(np.int64) - 1) // patch.time
    area = (index.height[members] // patch.height) * (index.width[members] // patch.width)
    return int((groups * area).sum()), len(members)


def data_account(plan: Plan, index: Index, patch: Patch, patches: int, examples: int) -> dict[str, Any]:
    """Different data that a run could see, and how often it saw it.

    Args:
      plan: its rows.
      index: shapes of the examples of its split.
      patch: extent of a patch.
      patches, examples: what the run has seen.

    Returns:
      unique_tokens, unique_examples: patches and examples of all members of its stages, long clips counting whole;
      repeated_tokens: patches seen beyond those; epochs: patches seen over the different ones; seconds_of_video: seen,
      from the mean length of the windows of the first stage.
    """
    unique, members = unique_data(plan, index, patch)
    stage = plan.stages[0]
    counts = [weight * len(part) for weight, part in zip(stage.weights, stage.members, strict=True)]
    means = [float((stage.frames[part] / index.fps[part]).mean()) if len(part) else 0.0 for part in stage.members]
    return {
        "unique_tokens": unique,
        "unique_examples": members,
        "repeated_tokens": max(0, patches - unique),
        "epochs": patches / unique,
        "seconds_of_video": examples * float(np.average(means, weights=counts)),
    }


@dataclasses.dataclass(frozen=True)
class Reach:
    """What a budget buys.

    Attributes:
      steps, patches, text, examples, flops: in all; flops is nan where there is no model to count for.
      epochs: passes over the data of each stage that is reached.
      visits: mean visits of an example of each data set, those left out by limits not counted.
    """

    steps: int
    patches: float
    text: float
    examples: float
    flops: float
    epochs: tuple[float, ...]
    visits: tuple[float, ...]


def reach(
    plan: Plan,
    index: Index,
    config: DataConfig,
    flops_of: Callable[[StepSums], float] | None = None,
    *,
    steps: float = math.inf,
    tokens: float = math.inf,
    flops: float = math.inf,
) -> Reach:
    """Follows a plan stage by stage until one of the limits is reached; an epoch stands for all of its stage.

    Args:
      plan, index, config: the data.
      flops_of: training FLOPs of a step; needed for a limit of FLOPs.
      steps, tokens, flops: limits; tokens are patches, captions apart.

    Raises:
      UserError: if there is no limit, or one of FLOPs without a model.
    """
    if min(steps, tokens, flops) == math.inf:
        raise UserError("a budget is needed: --steps, --tokens or --flops")
    if flops < math.inf and flops_of is None:
        raise UserError("--flops needs a model to count for; name a training config with --config=configs/X.py")
    starts = [stage.step for stage in config.stages] or [0]
    ends = [*starts[1:], math.inf]
    total = dict.fromkeys(("steps", "patches", "text", "examples", "flops"), 0.0)
    epochs, visits = [], np.zeros(len(plan.stages[0].weights))
    for n, stage in enumerate(plan.stages):
        epoch = plan.epoch(0, n)
        sums = step_sums(epoch, index, config.rows_per_step)
        per_step = {**dataclasses.asdict(sums), "steps": 1.0, "flops": flops_of(sums) if flops_of else math.nan}
        room = min(ends[n] - starts[n], steps - total["steps"], (tokens - total["patches"]) / sums.patches)
        if flops < math.inf:
            room = min(room, (flops - total["flops"]) / per_step["flops"])
        for name in total:
            total[name] += room * per_step[name]
        epochs.append(room * config.rows_per_step / epoch.rows)
        visits += np.multiply(stage.weights, epochs[-1])
        if room < ends[n] - starts[n]:
            break
    total_steps = round(total.pop("steps"))
    return Reach(total_steps, **total, epochs=tuple(epochs), visits=tuple(visits.tolist()))
