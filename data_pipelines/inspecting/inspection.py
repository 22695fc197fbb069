"""Figures of data sets and of the rows that are planned from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.inspecting.changes import read_changes
from data_pipelines.packing.balance import imbalance
from data_pipelines.packing.budget import StepSums, reach
from data_pipelines.packing.index import Index
from data_pipelines.packing.packing import Plan
from data_pipelines.packing.rows import EpochPlan
from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.pipeline import make_plan
from data_pipelines.reading.store import Dataset
from vdit.config import DataConfig
from vdit.patches import Patch


def inspect(
    data: Dataset | Mixture,
    config: DataConfig,
    seed: int,
    devices: int,
    budget: dict[str, Any] | None = None,
    flops_of: Callable[[StepSums], float] | None = None,
) -> dict[str, Any]:
    """Figures of a data set or mixture: shapes, captions, changes, its planned rows and how far a budget goes.

    Args:
      data: what is inspected.
      config: split, row sizes, windows, captions, weights and stages.
      seed: of the plan.
      devices: over which the rows of a step are spread; must divide config.rows_per_step.
      budget: limits for `budget.reach`; empty = none.
      flops_of: training FLOPs of a step, for the budget.

    Returns:
      The figures of `plan_figures` for the first epoch, those of the split, and under "datasets" of each data set.

    Raises:
      UserError: if data and config do not go together.
    """
    index, plan = data.index(config.split), make_plan(data, config, data.patch, seed)
    epoch = plan.epoch(0)
    figures = {
        "path": str(data.path),
        "split": config.split,
        "filter": config.filter,
        **_describe(data, index, config.split),
        **plan_figures(epoch, config, devices),
        "kept": sum(map(len, plan.stages[0].members)),
        "datasets": _describe_parts(data, index, config, plan, epoch),
    }
    if config.stages:
        figures["stages"] = [_describe_stage(plan, n, config, devices) for n in range(len(plan.stages))]
    if budget:
        figures["budget"] = dataclasses.asdict(reach(plan, index, config, flops_of, **budget))
    return figures


def plan_figures(epoch: EpochPlan, config: DataConfig, devices: int) -> dict[str, Any]:
    """Rows of an epoch.

    fill is real tokens over slots; balance is the slowest device over the mean (`balance.imbalance`).
    """
    costs, tokens = epoch.costs, int(epoch.tokens.sum(dtype=np.int64))
    return {
        "examples": len(epoch.examples),
        "rows": epoch.rows,
        "steps": epoch.rows / config.rows_per_step,
        "tokens": tokens,
        "slots": epoch.rows * config.row_tokens,
        "fill": epoch.fill(config.row_tokens),
        "balance": imbalance(costs, config.rows_per_step, devices),
        "row_cost_spread": float(costs.std() / costs.mean()),
        "examples_per_row": describe(np.diff(epoch.offsets)),
        "tokens_per_example": describe(epoch.tokens),
    }


def describe(values: np.ndarray, bins: int = 8) -> dict[str, Any]:
    """Least, mean, median, greatest and a histogram of numbers."""
    counts, edges = np.histogram(values, bins=min(bins, max(1, len(np.unique(values)))))
    return {
        "min": float(values.min()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _describe(data: Dataset | Mixture, index: Index, split: str) -> dict[str, Any]:
    """What a data set or mixture is, and the shapes and captions of a split."""
    texts = {kind: index.text_tokens[:, k] for k, kind in enumerate(data.meta["captions"])}
    return {
        "source": data.meta["source"],
        "licence": data.meta["licence"],
        "splits": {name: data.size(name) for name in data.splits},
        "shapes": _describe_shapes(index, data.patch),
        "captions": {kind: describe(text[text >= 0]) for kind, text in texts.items()},  # -1: not of this data set
        "measures": {
            name: describe(known) for name, values in index.measures.items() if len(known := values[~np.isnan(values)])
        },
    }


def _describe_shapes(index: Index, patch: Patch) -> dict[str, Any]:
    sizes, counts = np.unique(np.stack([index.height, index.width], 1), axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:8]
    grid_N3 = index.grid_N3(patch).astype(np.int64)
    return {
        "frames": describe(index.frames),
        "seconds": describe(index.frames / index.fps),
        "fps": describe(index.fps),
        "patches": describe(grid_N3.prod(axis=1)),
        "area": describe(grid_N3[:, 1] * grid_N3[:, 2]),
        "aspect": describe(index.width / index.height),
        "images": int((index.frames == 1).sum()),
        "hours": float((index.frames / index.fps)[index.frames > 1].sum() / 3600),
        "distinct_sizes": len(sizes),
        "sizes": [{"height": int(sizes[i, 0]), "width": int(sizes[i, 1]), "examples": int(counts[i])} for i in common],
    }


def _describe_parts(
    data: Dataset | Mixture, index: Index, config: DataConfig, plan: Plan, epoch: EpochPlan
) -> list[dict[str, Any]]:
    """Each data set: as `_describe`, its changes of size, and its share of the first epoch."""
    out, first = [], 0
    text = epoch.caption_tokens(index)
    for dataset, count, weight in zip(data.datasets, data.parts(config.split), plan.stages[0].weights, strict=True):
        mine = (epoch.examples >= first) & (epoch.examples < first + count)
        tokens = int(epoch.tokens[mine].sum(dtype=np.int64))
        figures = {
            "path": str(dataset.path),
            "weight": weight,
            "examples": count,
            "examples_an_epoch": int(mine.sum()),
            "tokens": tokens,
            "patches": tokens - int(text[mine].sum(dtype=np.int64)),
            "share": tokens / int(epoch.tokens.sum(dtype=np.int64)),
        }
        if count:
            figures |= _describe(dataset, dataset.index(config.split), config.split)
        out.append({**figures, "changes": read_changes(dataset.path, config.split)})
        first += count
    return out


def _describe_stage(plan: Plan, number: int, config: DataConfig, devices: int) -> dict[str, Any]:
    """One stage: its limits, what they leave out, and its first epoch."""
    stage, epoch = plan.stages[number], plan.epoch(0, number)
    figures = plan_figures(epoch, config, devices)
    kept = sum(map(len, stage.members))
    names = ("examples", "rows", "steps", "tokens", "slots", "fill", "balance")
    return {
        **dataclasses.asdict(config.stages[number]),
        "left_out": len(stage.frames) - kept,
        **{f"epoch_{name}" if name == "steps" else name: figures[name] for name in names},
    }
