"""Iso-FLOP grids as runs of a sweep: budgets times sizes, seeds and shares of the data.

isoflop("configs/physics.py", budgets=(1e11, 4e11, 1.6e12), sizes=(size(16), size(24), size(32), size(48)))

With trunks=True each size has one constant-rate trunk, off which every budget branches with a cool-down (Hagele et al.
2024): a larger budget continues what a smaller one has paid for. Else every budget is a run of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

from launch.sweeps import budget
from launch.sweeps.expand import expand
from launch.sweeps.grid import Fields, IsoFlop, Points, check_grid
from vdit.config import SIBLING, Config
from vdit.errors import UserError

MIN_STEPS = 20
MIN_SPAN = 4.0  # N of the largest over that of the smallest size


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
    check_grid([(budget, sizes) for budget in budgets])
    if rule and trunks:
        raise UserError("isoflop: a rule that depends on the budget needs trunks=False")
    points: list[dict[str, Any]] = []
    sizes_N = []
    for fields, seed, fraction in itertools.product(sizes, seeds, fractions):
        shared = {**fields, "seed": seed, "data.fraction": fraction}
        lengths = []
        for flops in sorted(budgets):
            more = {**shared, **(rule(flops, fields) if rule else {})}
            steps = budget.steps_for(flops, _config(experiment, more))
            if steps < MIN_STEPS:
                raise UserError(f"isoflop: {flops:g} FLOPs buy {steps} steps of {_name(fields)}; at least {MIN_STEPS}")
            lengths.append((more, steps))
        sizes_N.append(budget.params(_config(experiment, shared)))
        trunk = ""
        if trunks:
            leaves = [steps - cooldown_steps(steps, cooldown) for _, steps in lengths]
            points.append({**shared, **trunk_fields(*leaves)})
            trunk = expand(experiment, Points(points[-1:]))[0].id
        points += [{**more, **branch_fields(steps, cooldown, trunk)} for more, steps in lengths]
    if max(sizes_N) < MIN_SPAN * min(sizes_N):
        raise UserError(
            f"isoflop: the sizes span a factor {max(sizes_N) / min(sizes_N):.2g} in N; a parabola needs {MIN_SPAN:g}"
        )
    return IsoFlop(points)


def trunk_fields(*leaves: int) -> dict[str, Any]:
    """Fields of a constant-rate run off which others branch after these steps."""
    ends = tuple(sorted(set(leaves)))
    return {
        "optimizer.cooldown": 0,
        "train.steps": ends[-1],
        "train.keep_steps": ends,
        "train.evaluate_every": -1,
    }


def cooldown_steps(steps: int, share: float) -> int:
    """Steps in which the rate of a run falls."""
    return max(1, round(steps * share))


def branch_fields(steps: int, cooldown: float, trunk: str = "") -> dict[str, Any]:
    """Fields of a run of so many steps, a share of which cools down; of a branch, with the id of its trunk."""
    fields = {"train.steps": steps, "optimizer.cooldown": cooldown_steps(steps, cooldown)}
    return {**fields, "train.branch_from": f"{SIBLING}{trunk}"} if trunk else fields


def _config(experiment: str, fields: Fields) -> Config:
    return expand(experiment, Points([dict(fields)]))[0].config


def _name(fields: Fields) -> str:
    return " ".join(f"{name.removeprefix('model.')}={value}" for name, value in fields.items())
