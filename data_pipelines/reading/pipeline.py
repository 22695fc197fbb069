"""From planned rows to batches: a Grain pipeline with random access, each process reading only its own rows."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator

import grain
import numpy as np

from data_pipelines.packing.packing import Plan
from data_pipelines.packing.rows import EpochPlan, RowPlan
from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from vdit.batch import PackedBatch, RowShape, empty_row, pack_row, stack_rows
from vdit.config import DataConfig
from vdit.errors import UserError
from vdit.patches import Patch

READ = grain.ReadOptions(num_threads=2, prefetch_buffer_size=16)
"""Rows read ahead, by threads: decompression and copies release the interpreter lock; processes would cost more."""


def make_plan(dataset: Dataset | Mixture, config: DataConfig, patch: Patch, seed: int) -> Plan:
    """The plan of a data set's rows.

    Raises:
      UserError: if config and data set do not go together.
    """
    if patch != dataset.patch:
        raise UserError(f"{dataset.path} was built for {dataset.patch}, not {patch}; build it again or set this patch")
    about, index = dataset.meta["autoencoder"], dataset.index(config.split)
    latents = about["name"] != "pixels"
    if latents and 0 < config.max_frames < (longest := int(index.frames.max(initial=0))):
        most = 1 + (config.max_frames - 1) * about["strides"][0]
        raise UserError(
            f"data.max_frames={config.max_frames} counts frames of latents, and would leave out all but a clip's first "
            f"({dataset.path} has up to {longest}); build the data again with --max_frames={most}"
        )
    return Plan(index, config, patch, seed, dataset.meta["captions"], dataset.parts(config.split), latents)


def rows(
    dataset: Dataset | Mixture,
    config: DataConfig,
    patch: Patch,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    read: grain.ReadOptions = READ,
) -> grain.DatasetIterator[PackedBatch]:
    """Batches of steps start_step, start_step + 1, ..., without end.

    Step s holds rows [s B, (s + 1) B) of the plan's stream, B = rows_per_step; process i of n takes the i-th of n
    equal runs of them. So the rows of a step do not depend on the number of processes or on where reading began.

    Args:
      dataset, config, patch, seed: determine the rows.
      start_step: first step.
      process_index, process_count: which part of each step to read.
      read: threads and rows read ahead.

    Returns:
      Iterator of NumPy batches, leading axis rows_per_step / process_count. Closing it ends its threads.

    Raises:
      UserError: if the data set is smaller than one step, or the processes do not divide a step's rows.
    """
    plan = make_plan(dataset, config, patch, seed)
    plan.require_step()
    return rows_of_plan(dataset, config, plan, start_step, process_index, process_count, read)


def rows_of_plan(
    dataset: Dataset | Mixture,
    config: DataConfig,
    plan: Plan,
    start_step: int,
    process_index: int,
    process_count: int,
    read: grain.ReadOptions = READ,
) -> grain.DatasetIterator[PackedBatch]:
    """`rows` of a plan that is made."""
    local = _local_rows(config, process_count)
    first = process_index * local
    reader = RowReader(dataset, config.split, plan.shape)

    def read_row(number: int) -> PackedBatch:
        step, row = divmod(number, local)
        return reader(plan.row(step * config.rows_per_step + first + row))

    numbers = grain.MapDataset.range(start_step * local, sys.maxsize)
    return iter(numbers.map(read_row).to_iter_dataset(read).batch(local, batch_fn=stack_rows))


def validation_rows(
    dataset: Dataset | Mixture,
    config: DataConfig,
    patch: Patch,
    process_index: int = 0,
    process_count: int = 1,
    read: grain.ReadOptions = READ,
) -> Iterator[PackedBatch]:
    """Every example of config.split once: its first window, with the first configured kind of caption; no stages.

    The last batch is filled up with empty rows: all batches have one shape, all processes the same number of them.

    Args and raises: as `rows`.
    """
    epoch = validation_plan(dataset, config, patch).once()
    local = _local_rows(config, process_count)
    reader = RowReader(dataset, config.split, RowShape(config.row_tokens, config.row_examples, config.row_text))

    def read_row(number: int) -> PackedBatch:
        step, row = divmod(number, local)
        k = step * config.rows_per_step + process_index * local + row
        return reader(epoch.row(k)) if k < epoch.rows else empty_row(reader(epoch.row(0)))

    numbers = grain.MapDataset.range(validation_steps(epoch, config) * local)
    return iter(numbers.map(read_row).to_iter_dataset(read).batch(local, batch_fn=stack_rows))


def validation_plan(dataset: Dataset | Mixture, config: DataConfig, patch: Patch) -> Plan:
    """The plan whose `once` gives the rows of `validation_rows`; raises as `make_plan`."""
    whole = dataclasses.replace(config, stages=(), weights=(), fraction=1.0, buckets=0, filter="", strata="")
    return make_plan(dataset, whole, patch, seed=0)


def validation_steps(epoch: EpochPlan, config: DataConfig) -> int:
    """Batches that `validation_rows` gives."""
    return -(-epoch.rows // config.rows_per_step)


@dataclasses.dataclass(frozen=True)
class RowReader:
    """Reads the examples of a planned row and lays them out."""

    dataset: Dataset | Mixture
    split: str
    shape: RowShape

    def __call__(self, plan: RowPlan) -> PackedBatch:
        kinds = self.dataset.meta["captions"]
        examples = [
            self.dataset.read_example(self.split, i, start, frames, kinds[column] if kinds and column >= 0 else None)
            for i, start, frames, column in zip(
                plan.examples.tolist(), plan.starts.tolist(), plan.frames.tolist(), plan.captions.tolist(), strict=True
            )
        ]
        return pack_row(examples, self.shape, self.dataset.patch)


def channel_mean(dataset: Dataset | Mixture, split: str, examples: int = 256) -> tuple[float, ...]:
    """Mean of each channel, pixels as [-1, 1]: over the first examples of each data set, which count by their size."""
    parts = [part for part in dataset.datasets if split in part.splits]
    means = [
        np.mean([_clip_mean(part, split, i) for i in range(min(examples, part.size(split)))], axis=0) for part in parts
    ]
    mean = np.average(means, axis=0, weights=[part.size(split) for part in parts])
    return tuple(round(float(m), 4) for m in (mean / 127.5 - 1 if dataset.meta["dtype"] == "uint8" else mean))


def _clip_mean(dataset: Dataset, split: str, i: int) -> np.ndarray:
    return dataset.read_clip(split, i).video_TYXC.mean((0, 1, 2), dtype=np.float64)


def data_std(dataset: Dataset | Mixture, split: str, mean: tuple[float, ...], examples: int = 256) -> float:
    """Standard deviation of the numbers about their channels' mean, pixels as [-1, 1]; of the same examples."""
    scale, shift = (127.5, 1.0) if dataset.meta["dtype"] == "uint8" else (1.0, 0.0)
    squares, sizes = [], []
    for part in (part for part in dataset.datasets if split in part.splits):
        clips = [part.read_clip(split, i).video_TYXC for i in range(min(examples, part.size(split)))]
        squares.append(
            np.mean([np.square(clip / scale - shift - np.array(mean), dtype=np.float64).mean() for clip in clips])
        )
        sizes.append(part.size(split))
    return round(float(np.sqrt(np.average(squares, weights=sizes))), 4)


def _local_rows(config: DataConfig, process_count: int) -> int:
    local, rest = divmod(config.rows_per_step, process_count)
    if rest:
        raise UserError(f"data.rows_per_step={config.rows_per_step} is not a multiple of the {process_count} processes")
    return local
