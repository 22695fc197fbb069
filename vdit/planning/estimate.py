"""How long a compiled step takes, between a low and a high estimate, and what a run costs."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from vdit import flops
from vdit.config import ATTENTION_BLOCKS, Config, ModelConfig
from vdit.data import RowLengths
from vdit.models.attention.splash import active_blocks
from vdit.planning.chips import Chip
from vdit.planning.cost import Collective, Cost

KERNEL_MATMULS = {"fwd": 2, "dkv": 5, "dq": 3}
"""Matrix products over the executed blocks in a splash kernel, by what its name says it is. tokamax's backward kernel,
"dkv", makes the gradient of the queries too."""

CHUNKED_MATMULS = 7
"""The same of chunked attention, forward and backward; two more where the forward pass is run again."""

SPEED = {128: 0.197, 256: 0.494, 512: 1.0, 1024: 1.134}
"""Speed of splash's kernels over pairs of tokens by block, over that with 512: from the cycles that the TPU compiler
schedules for a step of both, `python -m benchmarks.kernels`."""


@dataclasses.dataclass(frozen=True)
class Assumptions:
    """What the compiled program does not contain.

    Attributes:
      attention_efficiency: share of the peak that attention kernels reach over the blocks they execute, with blocks of
        512 tokens (others run slower or faster, see `SPEED`), for the low, expected and high time. 0.52 is what the
        published step of Wan 2.1 14B leaves for its kernels (docs/planner.md).
      link: bytes/s in one direction of one link between chips.
      dcn: bytes/s of one chip into the data-centre network.
      price: dollars per chip-hour; None is not known, so the plan has no cost.
    """

    attention_efficiency: tuple[float, float, float]
    link: float
    dcn: float
    price: float | None


EXPECTED_EFFICIENCY = (0.65, 0.52, 0.45)


@dataclasses.dataclass(frozen=True)
class Work:
    """FLOPs and tokens of one step, required and executed, over all chips.

    Attributes:
      model_flops: of the model, counted from segments (scaling.flops).
      linear_flops: of that, outside attention.
      attention_flops: that the attention kernels execute; 0 where they are part of the compiled program.
      compiled_flops: matrix products of the compiled program plus attention_flops.
      attention_overhead: executed query-key pairs over those that attend: the sum of n^2, or `flops.attending_pairs`.
      attention_speed: of the kernels, over that with blocks of 512.
      tokens, patches, slots: of a step.
      imbalance: attention of the slowest row shard over the mean.
    """

    model_flops: float
    linear_flops: float
    attention_flops: float
    compiled_flops: float
    attention_overhead: float
    attention_speed: float
    tokens: float
    patches: float
    slots: int
    imbalance: float


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Seconds of one step by what they go to, for one of the three estimates."""

    matmul: float
    elementwise: float
    copies: float
    slices: float
    attention: float
    waiting: float

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


def work_of(config: Config, rows: RowLengths, cost: Cost, chips: int, shards: int) -> Work:
    """Counts a step of average rows; `shards` row shards wait for the slowest."""
    data, model = config.data, config.model
    shape = flops.shape_of(model, rows.interface.patch, rows.interface.text, config.lora)
    steps = len(rows) / data.rows_per_step  # of the epoch
    pairs = float(flops.attending_pairs(shape.cross, rows.patches.astype(np.float64), rows.caption_tokens).sum())
    patches, words = (float(x.sum(dtype=np.int64)) for x in (rows.patches, rows.caption_tokens))
    total = flops.training_flops_of_sums(shape, patches, words, pairs, len(rows.patches)) / steps
    areas = executed_areas(config, rows)
    attention = flops.attention_flops(model.width, areas.sum(), executed_matmuls(config, cost)) * model.depth / steps
    linear = total - flops.attention_flops(model.width, pairs, 6) * model.depth / steps
    return Work(
        model_flops=total,
        linear_flops=float(linear),
        attention_flops=float(attention),
        compiled_flops=cost.flops * chips + float(attention),
        attention_overhead=float(areas.sum()) / pairs,
        attention_speed=speed_of(model),
        tokens=(patches + words) / steps,
        patches=patches / steps,
        slots=data.rows_per_step * data.row_tokens,
        imbalance=_slowest(areas, data.rows_per_step, shards),
    )


def _slowest(areas: np.ndarray, rows_per_step: int, shards: int) -> float:
    """Attention of the slowest row shard over the mean, over the epoch's whole steps."""
    steps = len(areas) // rows_per_step
    load = areas[: steps * rows_per_step].reshape(steps, shards, -1).sum(-1)
    return float(load.max(1).sum() / load.mean(1).sum()) if steps else 1.0


def speed_of(model: ModelConfig) -> float:
    """Speed of the attention kernels over that with blocks of 512; between two known blocks, in proportion."""
    if model.backend("tpu") != "splash":
        return 1.0
    return float(np.interp(model.attention_block or ATTENTION_BLOCKS["splash"], list(SPEED), list(SPEED.values())))


def executed_areas(config: Config, rows: RowLengths) -> np.ndarray:
    """Query-key pairs of each row that the attention backend works on, in one layer and head.

    Where captions are attended to from outside the stream (family "wan"), they are segments of their own in it, and
    the pairs of the second attention count too.
    """
    model, backend = config.model, config.model.backend("tpu")
    block = model.attention_block or ATTENTION_BLOCKS.get(backend, 0)
    cross = flops.shape_of(model, rows.interface.patch, rows.interface.text).cross
    if backend == "reference":
        return np.full(len(rows), config.data.row_tokens * float(config.data.row_tokens + cross * config.data.row_text))
    areas = []
    for patches, words in zip(
        *(np.split(x, rows.offsets[1:-1]) for x in (rows.patches, rows.caption_tokens)), strict=True
    ):
        segments = np.stack([words, patches], 1).ravel() if cross else patches + words
        if backend == "chunked":
            chunks = -(-segments // block) * block
            area = np.square(chunks, dtype=np.float64).sum()
            area += cross * ((-(-(patches + words) // block) * block) * (-(-words // block) * block)).sum()
        else:
            area = flops.attention_area(segments[segments > 0], block, block)
            area += _cross_area(patches + words, words, block) if cross else 0
        areas.append(area)
    return np.array(areas, np.float64)


def _cross_area(queries: np.ndarray, keys: np.ndarray, block: int) -> int:
    """Pairs in the blocks that attention of examples to their own captions executes; see `splash.active_blocks`."""
    ids = [np.repeat(np.arange(1, len(sizes) + 1), sizes) for sizes in (queries, keys)]
    q_ids, k_ids = (np.pad(x, (0, -len(x) % block or block * (not len(x))))[None] for x in ids)
    active_QK = active_blocks(q_ids, k_ids, block)[0]
    return int(np.maximum(active_QK.sum(1), 1).sum()) * block**2  # a block of queries without keys visits one block


def executed_matmuls(config: Config, cost: Cost) -> float:
    """Matrix products over the executed area outside the compiled program's own, for one layer, both passes.

    The backward kernel runs once for each layer, part of the ring and micro-batch, so the others are counted by it.
    """
    if config.model.backend("tpu") == "reference":
        return 0.0
    if config.model.backend("tpu") == "chunked":
        return CHUNKED_MATMULS + 2 * (config.model.remat == "blocks")
    counts = dict.fromkeys(KERNEL_MATMULS, 0)
    for kernel in cost.kernels:
        for name in counts:
            if name in kernel.name:
                counts[name] += kernel.count
                break
    backward = counts["dkv"] or math.inf
    return sum(KERNEL_MATMULS[name] * count for name, count in counts.items()) / backward


def seconds_of(
    cost: Cost, work: Work, chip: Chip, assumptions: Assumptions, coordinates: np.ndarray, slices: int
) -> dict[str, Seconds]:
    """Seconds of one step: {"low", "expected", "high"}.

    * low: every operation runs at the peak of the matrix units or of HBM, whichever binds, and what the compiler
      overlaps is hidden. expected and high: the compiler's own cycles.
    * low and expected: collectives use every axis of the torus that their group spans, in both directions, and those
      that the compiler overlaps take time only beyond the computation. high: one axis, nothing hidden.

    Args:
      cost: of one chip.
      work: of one step on all chips.
      chip: figures of the chip.
      assumptions: attention efficiency and bandwidths.
      coordinates: place of every device of the mesh in its torus, in the mesh's order.
      slices: number of slices.
    """
    out = {}
    for which, name in enumerate(("low", "expected", "high")):
        parts = {"matmul": 0.0, "elementwise": 0.0, "copies": 0.0, "slices": 0.0}
        for op in cost.ops:
            if op.kind != "prefetch":
                time = op.cycles / chip.clock
                floor = max(op.flops / chip.peak, op.bytes / chip.hbm_bandwidth)
                parts[op.kind] += min(time, floor) if name == "low" and time else max(time, op.flops / chip.peak)
        efficiency = assumptions.attention_efficiency[which] * work.attention_speed
        attention = work.attention_flops / len(coordinates) / chip.peak / efficiency
        attention *= 1.0 if name == "low" else work.imbalance
        computing = sum(parts.values()) + attention
        hidden = shown = 0.0
        for collective in cost.collectives:
            time = collective_seconds(collective, chip, assumptions, coordinates, slices, all_axes=name != "high")
            if collective.overlapped and name != "high":
                hidden += time
            else:
                shown += time
        out[name] = Seconds(**parts, attention=attention, waiting=shown + max(0.0, hidden - computing))
    return out


def collective_seconds(
    collective: Collective,
    chip: Chip,
    assumptions: Assumptions,
    coordinates: np.ndarray,
    slices: int,
    all_axes: bool,
) -> float:
    """Seconds of all runs of a collective by the bandwidth of rings, without latency.

    A ring of n moves (n - 1) / n of the array through every chip for a gather, scatter or exchange, and twice that for
    an all-reduce; both directions of an axis carry half, if it closes.
    """
    if collective.slices:
        share = (slices - 1) / slices * (2 if collective.kind == "all-reduce" else 1)
        return collective.count * collective.bytes * share / assumptions.dcn
    members = coordinates[list(collective.devices)]
    count = len(members)
    if count < 2:
        return 0.0
    if collective.kind == "collective-permute":
        return collective.count * collective.bytes / assumptions.link
    extent = [len(np.unique(axis)) for axis in members.T]
    axes = sum(length > 1 for length in extent) if all_axes else 1
    closed = any(length % chip.wraps == 0 for length in extent)
    share = (count - 1) / count * (2 if collective.kind == "all-reduce" else 1)
    bandwidth = assumptions.link * (2 if closed else 1) * max(1, axes)
    return collective.count * collective.bytes * share / bandwidth


def totals(collectives: list[Collective]) -> dict[str, dict[str, Any]]:
    """Runs and GiB on one chip of every kind of collective; those between slices apart."""
    out: dict[str, dict[str, Any]] = {}
    for collective in collectives:
        name = f"{collective.kind}, between slices" if collective.slices else collective.kind
        row = out.setdefault(name, {"count": 0, "gib": 0.0})
        row["count"] += collective.count
        row["gib"] += collective.count * collective.bytes / 2**30
    return dict(sorted(out.items()))
