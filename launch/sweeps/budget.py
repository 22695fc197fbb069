"""What a step of a run holds and costs, counted from its data's plan before anything is trained."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

from data_pipelines.packing.budget import StepSums, step_sums, unique_data
from data_pipelines.reading import pipeline
from data_pipelines.reading.mixture import open_data
from vdit import flops
from vdit.config import Config, DataConfig


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
