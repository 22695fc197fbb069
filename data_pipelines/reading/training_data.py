"""Data sets as a trainer takes them (`vdit.data.TrainingData`): opened, checked and planned once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.packing.budget import data_account
from data_pipelines.reading import pipeline
from data_pipelines.reading.components import principal_components
from data_pipelines.reading.crops import Crops, crop_batches
from data_pipelines.reading.mixture import Mixture, open_data
from data_pipelines.reading.store import Dataset
from vdit.batch import PackedBatch
from vdit.config import Config, DataConfig
from vdit.data import CropData, TrainingData
from vdit.errors import UserError
from vdit.patches import Patch

Batches = Callable[[int, int], Iterator[PackedBatch]]


def open_training_data(config: Config) -> TrainingData:
    """The data of a run: packed rows, or crops of clips for an autoencoder.

    Raises:
      UserError: if config and data do not go together.
    """
    return crop_data(config) if config.task == "autoencoder" else packed_data(config)


def packed_data(config: Config) -> TrainingData:
    """Packed rows of config.data, and those of its other splits for validation.

    Raises:
      UserError: if config and data do not go together.
    """
    dataset, data = open_data(config.data), config.data
    held_out = [split for split in dataset.splits if split != data.split]
    if config.train.evaluate_every >= 0 and not held_out:
        raise UserError(f"{dataset.path} has no split but {data.split} to validate on; set train.evaluate_every=-1")
    _check_encoders(dataset, data)
    plan = pipeline.make_plan(dataset, data, dataset.patch, config.seed)
    plan.require_step()
    index = dataset.index(data.split)
    if config.train.evaluate_every >= 0:
        for split in held_out:
            pipeline.validation_plan(dataset, dataclasses.replace(data, split=split), dataset.patch)

    def ids(rows: Sequence[int]) -> list[np.ndarray]:
        return [index.id[plan.row(row).examples] for row in rows]

    return TrainingData(
        meta=_meta(dataset, data),
        batches=functools.partial(pipeline.rows_of_plan, dataset, data, plan),
        mean=functools.partial(pipeline.channel_mean, dataset, data.split),
        std=functools.partial(pipeline.data_std, dataset, data.split),
        validation=validation_data(dataset, data),
        ids=ids,
        account=functools.partial(data_account, plan, index, dataset.patch),
    )


def validation_data(dataset: Dataset | Mixture, data: DataConfig) -> dict[str, Batches]:
    """The held-out splits of a data set, see `TrainingData.validation`."""
    return {
        split: functools.partial(
            pipeline.validation_rows, dataset, dataclasses.replace(data, split=split), dataset.patch
        )
        for split in dataset.splits
        if split != data.split
    }


def crop_data(config: Config) -> CropData:
    """Random crops of the clips of config.data.

    Raises:
      UserError: if the data set holds latents, or no clip is as large as a crop.
    """
    dataset, split, per_step = open_data(config.data), config.data.split, config.data.rows_per_step
    crops = Crops(dataset, split, config.autoencoder, config.seed)

    def batches(step: int, part: int, parts: int) -> Iterator[np.ndarray]:
        return iter(crop_batches(crops, per_step, step, part, parts))

    return CropData(
        meta=_meta(dataset, config.data),
        batches=batches,
        ids=lambda rows: [[crops.clip_id(*divmod(row, per_step))] for row in rows],
        sample=lambda count: np.stack([crops(0, number) for number in range(count)]),
        components=functools.partial(principal_components, dataset, split, Patch(*config.autoencoder.strides)),
    )


def _meta(dataset: Dataset | Mixture, data: DataConfig) -> dict[str, Any]:
    """The description of the data, with what a resumed run must find again: the data sets, in order, and weights."""
    weights = data.weights or (1.0,) * len(dataset.datasets)
    datasets = [
        {"path": str(part.path), "weight": weight, "fingerprint": part.fingerprint}
        for part, weight in zip(dataset.datasets, weights, strict=True)
    ]
    index = dataset.index(data.split)
    sizes = np.unique(np.stack([index.height, index.width], 1), axis=0).tolist()
    size = {"size": sizes[0]} if len(sizes) == 1 else {}
    return {**dataset.meta, "fps": float(np.median(index.fps)), **size, "datasets": datasets}


def _check_encoders(dataset: Dataset | Mixture, data: DataConfig) -> None:
    for kind in ("autoencoder", "text_encoder"):
        wanted, made = getattr(data, kind), dataset.meta[kind]["name"]
        if wanted and wanted != made:
            raise UserError(
                f"{dataset.path} was made with the {kind.replace('_', ' ')} {made}, not {wanted}; "
                f"build it again or set data.{kind}"
            )
