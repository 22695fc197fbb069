"""The order of an epoch's rows: random, but rows that are worked on at the same time cost about the same."""

from __future__ import annotations

import numpy as np

ATTENTION_COST = 1 / (6 * 512)
"""Cost of a row is sum n_i + ATTENTION_COST * sum n_i^2, in units of one token's linear work.

A block does 12 D^2 n + 2 D n^2 multiply-adds on a segment of n tokens (Peebles & Xie 2023), so the ratio is 1 / (6 D).
It is fixed at D = 512, so that models of all widths see the same rows.
"""

CHUNK_STEPS = 16
"""Rows are sorted by cost inside shuffled chunks of this many steps."""


def row_costs(lengths: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Cost of every row, float64.

    Args:
      lengths: tokens of the examples, row after row.
      offsets: (rows + 1,) where each row begins.
    """
    if len(offsets) < 2:
        return np.zeros(0)
    return np.add.reduceat(lengths + ATTENTION_COST * np.square(lengths, dtype=np.float64), offsets[:-1])


def order_rows(costs: np.ndarray, rows_per_step: int, phase: int, rng: np.random.Generator) -> np.ndarray:
    """Permutes an epoch's rows so that the rows of each step have like costs, whatever the number of devices.

    Steps are cut from sorted chunks, then shuffled. Inside a step the costliest rows stand beside the cheapest
    (`_fold`). Rows of the two steps shared with the neighbouring epochs are taken from the middle of the costs.

    Args:
      costs: cost of each row.
      rows_per_step: rows of one step.
      phase: rows of the epoch's first step that the epoch before has supplied.
      rng: shuffles.

    Returns:
      int64 permutation of the rows.
    """
    rows = rng.permutation(len(costs))
    head = min(-phase % rows_per_step, len(rows))
    steps, tail = divmod(len(rows) - head, rows_per_step)
    median = np.median(costs) if len(costs) else 0.0
    rows = rows[np.argsort(np.abs(costs[rows] - median), kind="stable")]
    shared, inner = rows[: head + tail], rng.permutation(rows[head + tail :])
    chunk = np.arange(len(inner)) // (CHUNK_STEPS * rows_per_step)
    inner = inner[np.lexsort((costs[inner], chunk))].reshape(steps, rows_per_step)
    inner = _fold(inner[rng.permutation(steps)], costs)
    return np.concatenate([shared[:head], inner.reshape(-1), shared[head:]])


def _fold(rows_SB: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Orders the rows of each step so that contiguous runs of 2, 4, 8 ... rows cost about the same.

    Groups (at first single rows) are sorted by cost and the costliest joined with the cheapest, until the number of
    groups is odd.
    """
    steps, count = rows_SB.shape
    groups = rows_SB.reshape(steps, count, 1)
    while groups.shape[1] % 2 == 0 and groups.size:
        rank = np.argsort(costs[groups].sum(-1), axis=1, kind="stable")
        groups = np.take_along_axis(groups, rank[..., None], axis=1)
        half = groups.shape[1] // 2
        groups = np.concatenate([groups[:, :half], groups[:, : half - 1 : -1]], axis=-1)
    return groups.reshape(steps, count)


def imbalance(costs: np.ndarray, rows_per_step: int, devices: int) -> float:
    """Slowest device's cost over the mean, over whole steps (time-weighted: summed slowest over summed means).

    Args:
      costs: cost of each row in the order they are read; a device takes a contiguous run of a step's rows.
      devices: must divide rows_per_step.
    """
    steps = len(costs) // rows_per_step
    if not steps:
        return 1.0
    load_SD = costs[: steps * rows_per_step].reshape(steps, devices, -1).sum(-1)
    return float(load_SD.max(1).sum() / load_SD.mean(1).sum())
