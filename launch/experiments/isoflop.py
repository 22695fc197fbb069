"""The study's lengths of runs from budgets of FLOPs, and the size that a law says is best."""

from __future__ import annotations

from collections.abc import Callable

from launch.experiments.study_plan import Size, StudyPlan
from launch.sweeps import scaling_grid
from vdit.config import Config
from vdit.scaling.laws.laws import fit_law
from vdit.scaling.runs import Table


def steps_for(budget: float, config: Config) -> int:
    """Steps that spend `budget` training FLOPs, at least 10."""
    return max(10, scaling_grid.steps_for(budget, config))


def best_size(grid: Table, plan: StudyPlan, config_of: Callable[[Size], Config]) -> tuple[Size, int, float]:
    """(size, N, D) of the plan's sizes with the lowest loss predicted at the held-out budget."""
    fit = fit_law(grid.params, grid.tokens, grid.loss, flops=grid.flops)
    found = []
    for size in plan.sizes:
        config = config_of(size)
        tokens = steps_for(plan.held_out, config) * scaling_grid.sums_per_step(config).patches
        planned = scaling_grid.params(config)
        params = int(min(grid.params, key=lambda n: abs(n - planned)))  # noqa: B023 (called at once)
        found.append((fit.predict(params, tokens)[0], size, params, tokens))
    _, size, params, tokens = min(found, key=lambda item: item[0])
    return size, params, tokens
