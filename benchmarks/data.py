"""What the data path reaches on this machine: `python -m benchmarks.data [--data=DIR] [--json]`.

Fill and balance of planned rows on a mixed set of images and clips, beside padding, bucketing and Grain's stream
packer on the same examples; planning of the same and of ten million examples, on one core; packed rows read from the
page cache, on one core; and how long a training loop of small steps waits for its data. Targets stand beside figures.
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from benchmarks.pages import Target
from vdit.command.run import run_main
from vdit.config import Config, DataConfig
from vdit.config_dict import build
from vdit.errors import UserError

DATA = flags.DEFINE_string("data", "study/data/physics", "Physics data set, as `make study` builds it; read and fed.")
EXAMPLES = flags.DEFINE_integer("examples", 100_000, "Examples of the mixed set that is packed.")
MANY = flags.DEFINE_integer("many", 10_000_000, "Examples of the set whose planning is measured by itself.")
STEPS = flags.DEFINE_integer("steps", 500, "Steps of the training loop that is watched.")
JSON = flags.DEFINE_bool("json", False, "Print JSON instead of a table.")

ROW = 16_384
DEVICES, ROWS_EACH = 64, 4
PACKED = DataConfig(row_tokens=ROW, row_examples=256, row_text=ROW, rows_per_step=DEVICES * ROWS_EACH)
TARGETS = {
    "fill, planned": Target(0.995),
    "balance": Target(1.05, most=True),
    "examples/s planned on one core": Target(200_000),
    "processor seconds, many": Target(60, most=True),
    "GB at the peak, many": Target(2, most=True),
    "MB/s read": Target(300),
    "share waiting for data": Target(0.01, most=True),
}


def mixed_index(count: int, seed: int = 0) -> Any:
    """Shapes of half images, half clips of 2 to 12 frame groups, as they come from the wild.

    Frames hold 16 to 1,200 patches (log-uniform) at log-normal aspect ratios, captions 5 to 200 tokens.
    """
    from data_pipelines.packing.index import Index

    rng = np.random.default_rng(seed)
    groups = np.where(rng.random(count) < 0.5, 1, rng.integers(2, 13, count))
    area, aspect = np.exp(rng.uniform(np.log(16), np.log(1200), count)), np.exp(rng.normal(0.2, 0.35, count))
    height, width = (np.maximum(1, np.round(np.sqrt(side))).astype(np.int32) for side in (area / aspect, area * aspect))
    groups = np.minimum(groups, np.maximum(1, (ROW - 200) // (height * width))).astype(np.int32)
    return Index(
        id=rng.permutation(count).astype(np.uint64),
        frames=1 + 4 * (groups - 1),
        height=8 * height,
        width=8 * width,
        fps=np.full(count, 24, np.float32),
        text_tokens=rng.integers(5, 200, (count, 1), dtype=np.int32),
    )


def fills(count: int) -> dict[str, float]:
    """Real tokens over slots of ROW-slot rows, way by way."""
    from data_pipelines.packing.packing import Plan
    from vdit.patches import Patch

    index = mixed_index(count)
    lengths = index.grid_N3(Patch()).prod(1) + index.text_tokens[:, 0]
    planned = Plan(index, PACKED, Patch(), 0).epoch(0)
    out = {"fill, planned": planned.fill(ROW)}
    rng = np.random.default_rng(1)
    for bins in (16, 256):
        rows = sum(1 for _ in grain_rows(rng.permutation(lengths), bins))
        out[f"fill, Grain best fit of {bins} rows"] = float(lengths.sum() / (rows * ROW))
    buckets = np.array_split(np.sort(lengths), 16)
    rows = sum(-(-len(bucket) // (ROW // bucket.max())) for bucket in buckets)
    out["fill, 16 buckets of length"] = float(lengths.sum() / (rows * ROW))
    out["fill, padded to the longest"] = float(lengths.mean() / lengths.max())
    return out


def grain_rows(lengths: np.ndarray, bins: int) -> Iterator[Any]:
    """Rows of Grain's best-fit stream packer, `bins` of which are open at a time."""
    import grain

    class Source:
        def __len__(self) -> int:
            return len(lengths)

        def __getitem__(self, i: int) -> dict[str, np.ndarray]:
            return {"tokens": np.ones(lengths[i], np.int8)}

    examples = grain.MapDataset.source(Source()).to_iter_dataset(grain.ReadOptions(0, 0))
    packer = grain.experimental.BestFitPackIterDataset
    return iter(packer(examples, length_struct={"tokens": ROW}, num_packing_bins=bins))


def planning(count: int) -> dict[str, float]:
    """Speed of planning an epoch, in processor time, and its balance over DEVICES devices."""
    from data_pipelines.packing.balance import imbalance
    from data_pipelines.packing.packing import Plan
    from vdit.patches import Patch

    index = mixed_index(count)
    start = time.process_time()
    plan = Plan(index, PACKED, Patch(), 0).epoch(0)
    seconds = time.process_time() - start
    return {
        "examples/s planned on one core": count / seconds,
        "balance": imbalance(plan.costs, PACKED.rows_per_step, DEVICES),
    }


def many(count: int) -> dict[str, float]:
    """Planning of many examples in a process of its own: time of the first epoch, and the peak of its memory."""
    code = f"from benchmarks.data import plan_many; plan_many({count})"
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"VDIT_CACHE": cache, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise UserError(f"planning of {count} examples failed: {done.stderr.strip().splitlines()[-1]}")
    names = ("processor seconds, many", "seconds, many", "GB at the peak, many")
    return {"examples, many": count, **dict(zip(names, json.loads(done.stdout), strict=True))}


def plan_many(count: int) -> None:
    """Plans an epoch of `count` examples; prints processor seconds, seconds and peak memory in GB."""
    from data_pipelines.packing.packing import Plan
    from vdit.patches import Patch

    index = mixed_index(count)
    start, began = time.process_time(), time.perf_counter()
    Plan(index, PACKED, Patch(), 0).epoch(0)
    seconds = time.process_time() - start, time.perf_counter() - began
    print(json.dumps([*seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9]))


def reading(path: str, least: float = 3.0) -> dict[str, float]:
    """Bytes of packed rows over processor time, one thread, files in the page cache."""
    from data_pipelines.reading.pipeline import RowReader, make_plan
    from data_pipelines.reading.store import Dataset

    dataset = Dataset(path)
    config = dataclasses.replace(PACKED, path=path, row_examples=1024)
    plan = make_plan(dataset, config, dataset.patch, 0)
    epoch, reader = plan.epoch(0), RowReader(dataset, config.split, plan.shape)
    rows = min(epoch.rows, 16)
    for k in range(rows):
        reader(epoch.row(k))
    read, start = 0, time.process_time()
    while time.process_time() - start < least:
        for k in range(rows):
            read += sum(array.nbytes for array in vars(reader(epoch.row(k))).values())
    return {"MB/s read": read / 1e6 / (time.process_time() - start)}


def waiting(path: str, steps: int) -> dict[str, float]:
    """Share of its time that a loop of the study's smallest model waits for batches that are not there."""
    from configs import physics
    from vdit.parallel.runtime import cpu_devices_for, initialise
    from vdit.train import train

    values = physics.get_config().to_dict()
    values["data"]["path"] = path
    values["model"] |= {"width": 8, "head_width": 8}
    values["optimizer"]["cooldown"] = 0
    values["train"] |= {"steps": steps, "log_every": steps // 10, "evaluate_every": -1}
    config = build(values, Config)
    initialise(cpu_devices_for(config))
    marks: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as workdir:
        train(config, Path(workdir) / "run", marks.append)
    first, last = marks[0]["seconds"], marks[-1]["seconds"]
    return {
        "load average of the machine": os.getloadavg()[0],
        "ms a step": float(1e3 * (last - first) / (0.9 * steps)),
        "share waiting for data": marks[-1]["data_wait"],
    }


def show(figures: dict[str, float]) -> None:
    """Prints figures with their targets."""
    for name, value in figures.items():
        verdict = TARGETS[name].verdict(value) if name in TARGETS else ""
        print(f"{name:<42} {value:>12,.6g}   {verdict}".rstrip(), flush=True)


def main(argv: list[str]) -> None:
    figures: dict[str, float] = {}
    for measure, *arguments in (
        (fills, EXAMPLES.value),
        (planning, EXAMPLES.value),
        (many, MANY.value),
        (reading, DATA.value),
        (waiting, DATA.value, STEPS.value),
    ):
        figures |= (measured := measure(*arguments))
        if not JSON.value:
            show(measured)
    if JSON.value:
        print(json.dumps(figures))


if __name__ == "__main__":
    run_main(main)
