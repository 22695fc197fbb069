"""Iso-FLOP grids as runs of a sweep: budgets times sizes, seeds and shares of the data.

isoflop("configs/physics.py", budgets=(1e11, 4e11, 1.6e12), sizes=(size(16), size(24), size(32), size(48)))

With trunks=True each size has one constant-rate trunk, off which every budget branches with a cool-down (Hagele et al.
2024): a larger budget continues what a smaller one has paid for. Else every budget is a run of its own.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_pipelines.packing.budget import StepSums, step_sums, unique_data
from data_pipelines.reading import pipeline
from data_pipelines.reading.mixture import open_data
from launch.sweeps.expand import expand
from launch.sweeps.grid import IsoFlop, Points
from vdit import flops
from vdit.config import Config, DataConfig
from vdit.errors import UserError

LEAST_BUDGETS, LEAST_SIZES = 3, 4
LEAST_SPAN = 4.0  # N of the largest over that of the smallest size of a budget
LEAST_STEPS = 20
Fields = Mapping[str, Any]


def size(width: int, depth: int = 2, head_width: int = 0, **more: Any) -> dict[str, Any]:
    """One model size, as fields of the config; `more` are others, with __ for the dot: data__rows_per_step=4."""
    head = head_width or next(h for h in (32, 24, 16, 12, 8, 4, 2, 1) if width % h == 0)
    fields = {name.replace("__", "."): value for name, value in more.items()}
    return {"model.width": width, "model.depth": depth, "model.head_width": head, **fields}


def isoflop(
    experiment: str,
    budgets: Sequence[float],
    sizes: Sequence[Fields],
    *,
    seeds: Sequence[int] = (0,),
    fractions: Sequence[float] = (1.0,),
    cooldown: float = 0.2,
    trunks: bool = True,
    rule: Callable[[float, Fields], Fields] | None = None,
) -> IsoFlop:
    """The runs of a grid: every size at every budget, for each seed and share of the data.

    Args:
      experiment: config file of what they share; its data set must be built, as FLOPs are counted from its plan.
      budgets: training FLOPs, counted from segments.
      sizes: fields of each size, see `size`. The learning rate is one for all of them (muP).
      seeds, fractions: of each.
      cooldown: share of a run's steps in which its rate falls.
      trunks: whether budgets of a size share a trunk. The points of a trunk name its branches' steps.
      rule: further fields of a run from its budget and size, such as a batch that grows with the budget; needs
        trunks=False, since runs of a trunk share their steps.

    Raises:
      UserError: for a grid in which no minimum could be found, or runs too short to be runs.
    """
    _check(budgets, sizes)
    if rule and trunks:
        raise UserError("isoflop: a rule that depends on the budget needs trunks=False")
    points: list[dict[str, Any]] = []
    sizes_N = []
    for fields, seed, fraction in itertools.product(sizes, seeds, fractions):
        shared = {**fields, "seed": seed, "data.fraction": fraction}
        lengths = []
        for budget in sorted(budgets):
            more = {**shared, **(rule(budget, fields) if rule else {})}
            steps = steps_for(budget, _config(experiment, more))
            if steps < LEAST_STEPS:
                raise UserError(
                    f"isoflop: {budget:g} FLOPs buy {steps} steps of {_name(fields)}; at least {LEAST_STEPS}"
                )
            lengths.append((more, steps, max(1, round(steps * cooldown))))
        sizes_N.append(params(_config(experiment, shared)))
        points += _trunk(experiment, shared, lengths) if trunks else [_separate(*length) for length in lengths]
    if max(sizes_N) < LEAST_SPAN * min(sizes_N):
        raise UserError(
            f"isoflop: the sizes span a factor {max(sizes_N) / min(sizes_N):.2g} in N; a parabola needs {LEAST_SPAN:g}"
        )
    return IsoFlop(points)


def _check(budgets: Sequence[float], sizes: Sequence[Fields]) -> None:
    if len(set(budgets)) < LEAST_BUDGETS:
        raise UserError(f"isoflop: {len(set(budgets))} budgets; a power law of their minima needs {LEAST_BUDGETS}")
    if len({tuple(sorted(fields.items())) for fields in sizes}) < LEAST_SIZES:
        raise UserError(f"isoflop: {len(sizes)} sizes; a minimum inside them needs {LEAST_SIZES}")
    if max(budgets) < 4 * min(budgets):
        raise UserError(f"isoflop: budgets span a factor {max(budgets) / min(budgets):.2g}; an exponent needs 4")


def _trunk(experiment: str, shared: dict[str, Any], lengths: list[tuple[Any, int, int]]) -> list[dict[str, Any]]:
    """The point of a trunk and those of its branches."""
    leaves = tuple(sorted({steps - cooldown for _, steps, cooldown in lengths}))
    trunk = {
        **shared,
        "optimizer.cooldown": 0,
        "train.steps": leaves[-1],
        "train.keep_steps": leaves,
        "train.evaluate_every": -1,
    }
    (run,) = expand(experiment, Points([trunk]))
    return [trunk, *({**_separate(*length), "train.branch_from": f"../{run.id}"} for length in lengths)]


def _separate(fields: dict[str, Any], steps: int, cooldown: int) -> dict[str, Any]:
    return {**fields, "optimizer.cooldown": cooldown, "train.steps": steps}


def _config(experiment: str, fields: Fields) -> Config:
    return expand(experiment, Points([dict(fields)]))[0].config


def _name(fields: Fields) -> str:
    return " ".join(f"{name.removeprefix('model.')}={value}" for name, value in fields.items())


@functools.cache
def _sums(data: DataConfig, seed: int) -> tuple[StepSums, Any]:
    """What one step holds on average, from the plan of the first epoch; and the data set's description."""
    dataset = open_data(data)
    index = dataset.index(data.split)
    epoch = pipeline.make_plan(dataset, data, dataset.patch, seed).epoch(0)
    return step_sums(epoch, index, data.rows_per_step), dataset.meta


def sums_per_step(config: Config) -> StepSums:
    """What one step of a run holds on average."""
    return _sums(config.data, config.seed)[0]


def unique_patches(config: Config) -> int:
    """Different patches that a run can see; long clips count whole."""
    dataset = open_data(config.data)
    plan = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed)
    return unique_data(plan, dataset.index(config.data.split), dataset.patch)[0]


def model_shape(config: Config) -> flops.ModelShape:
    """Sizes that decide the FLOPs of a run's model on its data."""
    meta = _sums(config.data, config.seed)[1]
    patch = math.prod(meta["patch"]) * meta["channels"]
    return flops.shape_of(config.model, patch, meta["text_encoder"]["width"])


def params(config: Config) -> int:
    """N of a run's model, without embeddings, before it is built."""
    return flops.parameters(model_shape(config)).without_embeddings


def flops_per_step(config: Config) -> float:
    """Training FLOPs of a step, counted from the segments of the plan."""
    return float(flops.training_flops_of_sums(model_shape(config), *dataclasses.astuple(sums_per_step(config))))


def steps_for(budget: float, config: Config) -> int:
    """Steps that spend a budget of training FLOPs."""
    return round(budget / flops_per_step(config))
