"""Lengths of runs from budgets of FLOPs, counted from the packing plan; and the size a law says is best."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from data_pipelines import pipeline
from data_pipelines.budget import StepSums, step_sums
from data_pipelines.store import Dataset
from launch.study_plan import Size, StudyPlan
from vdit.config import Config
from vdit.scaling import flops
from vdit.scaling.laws import fit_law
from vdit.scaling.runs import Table
from vdit.training.loop import interface_of


@functools.cache
def _sums_per_step(config: Config, data: Path) -> StepSums:
    """What one step holds on average, from the plan of the first epoch."""
    dataset = Dataset(data)
    index = dataset.index(config.data.split)
    epoch = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed).epoch(0)
    return step_sums(epoch, index, config.data.rows_per_step)


def model_shape(config: Config, data: Path) -> flops.ModelShape:
    """Sizes that decide the FLOPs of a config's model on a data set."""
    model, interface = config.model, interface_of(Dataset(data).meta)
    return flops.shape_of(model, interface.patch, interface.text)


def steps_for(budget: float, config: Config, data: Path) -> int:
    """Steps that spend `budget` training FLOPs."""
    sums = dataclasses.astuple(_sums_per_step(config, data))
    return max(10, round(budget / flops.training_flops_of_sums(model_shape(config, data), *sums)))


def best_size(grid: Table, plan: StudyPlan, data: Path, config_of: Callable[[Size], Config]) -> tuple[Size, int, float]:
    """(size, N, D) of the plan's sizes with the lowest loss predicted at the held-out budget."""
    fit = fit_law(grid.params, grid.tokens, grid.loss, flops=grid.flops)
    found = []
    for size in plan.sizes:
        config = config_of(size)
        tokens = steps_for(plan.held_out, config, data) * _sums_per_step(config, data).patches
        params = int(
            min(grid.params, key=lambda n: abs(n - flops.parameters(model_shape(config, data)).without_embeddings))
        )
        found.append((fit.predict(params, tokens)[0], size, params, tokens))
    _, size, params, tokens = min(found, key=lambda item: item[0])
    return size, params, tokens
