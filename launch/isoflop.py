"""Lengths of runs from budgets of FLOPs, counted from the packing plan; and the size a law says is best."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from data_pipelines import pipeline
from data_pipelines.store import Dataset
from launch.study_plan import Size, StudyPlan
from vdit.config import Config
from vdit.scaling import flops
from vdit.scaling.laws import fit_law
from vdit.scaling.runs import Table
from vdit.training.loop import interface_of


@functools.cache
def _sums_per_step(config: Config, data: Path) -> tuple[float, float, float, float]:
    """Mean patches, caption tokens, sum of n^2 and examples of one step, from the plan of the first epoch."""
    dataset = Dataset(data)
    index = dataset.index(config.data.split)
    epoch = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed).epoch(0)
    rows = [epoch.row(k) for k in range(epoch.rows)]
    examples = np.concatenate([row.examples for row in rows])
    frames = np.concatenate([row.frames for row in rows])
    captions = np.concatenate([row.captions for row in rows])
    patch = dataset.patch
    groups = 1 + (frames - 1) // patch.time
    patches = groups * (index.height[examples] // patch.height) * (index.width[examples] // patch.width)
    text = index.text_tokens[examples, captions]
    steps = epoch.rows / config.data.rows_per_step
    squares = ((patches + text).astype(np.float64) ** 2).sum()
    return patches.sum() / steps, text.sum() / steps, squares / steps, len(examples) / steps


def model_shape(config: Config, data: Path) -> flops.ModelShape:
    """Sizes that decide the FLOPs of a config's model on a data set."""
    model, interface = config.model, interface_of(Dataset(data).meta)
    return flops.ModelShape(model.width, model.depth, interface.patch, interface.text, model.feed_forward)


def steps_for(budget: float, config: Config, data: Path) -> int:
    """Steps that spend `budget` training FLOPs."""
    patches, text, squares, examples = _sums_per_step(config, data)
    per_step = flops.training_flops_of_sums(model_shape(config, data), patches, text, squares, examples)
    return max(10, round(budget / per_step))


def best_size(grid: Table, plan: StudyPlan, data: Path, config_of: Callable[[Size], Config]) -> tuple[Size, int, float]:
    """(size, N, D) of the plan's sizes with the lowest loss predicted at the held-out budget."""
    fit = fit_law(grid.params, grid.tokens, grid.loss, flops=grid.flops)
    found = []
    for size in plan.sizes:
        config = config_of(size)
        tokens = steps_for(plan.held_out, config, data) * _sums_per_step(config, data)[0]
        params = int(
            min(grid.params, key=lambda n: abs(n - flops.parameters(model_shape(config, data)).without_embeddings))
        )
        found.append((fit.predict(params, tokens)[0], size, params, tokens))
    _, size, params, tokens = min(found, key=lambda item: item[0])
    return size, params, tokens
