"""How long a run has trained, over all restarts, and how fast."""

from __future__ import annotations

import itertools
from typing import Any

import jax


def _attempts(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The rows of training steps, by the start of the process that wrote them ("started", a Unix time).

    Older versions did not write that: there, fewer seconds than in the row before mean another start.
    """
    attempts: list[list[dict[str, Any]]] = []
    for row in (row for row in rows if "validation" not in row):
        last = attempts[-1][-1] if attempts else None
        if last is None or row.get("started") != last.get("started") or row["seconds"] < last["seconds"]:
            attempts.append([])
        attempts[-1].append(row)
    return attempts


def training_seconds(rows: list[dict[str, Any]]) -> float:
    """Seconds in training steps, compilation included, validation after the last step not.

    Steps that were made again after a restart are counted once: the rows of the first time are gone.
    """
    return sum(attempt[-1]["seconds"] for attempt in _attempts(rows))


def time_account(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Time that the steps of a workdir took, over all restarts; a branch does not count its trunk's.

    Args:
      rows: of its metrics.jsonl.

    Returns:
      train_seconds: wall time, see `training_seconds`; accelerator_hours: that times the accelerators (machines, where
      there are none); tflops: FLOPs per second between logged steps, in 10^12, compilation left out.
    """
    seconds = training_seconds(rows)
    attempts = [[row for row in attempt if "flops" in row] for attempt in _attempts(rows)]
    steps = [pair for attempt in attempts for pair in itertools.pairwise(attempt)]
    pairs = [(b["flops"] - a["flops"], b["seconds"] - a["seconds"]) for a, b in steps]
    timed = [(work, took) for work, took in pairs if took > 0]
    accelerators = jax.process_count() if jax.default_backend() == "cpu" else jax.device_count()
    out = {"train_seconds": seconds, "accelerator_hours": seconds * accelerators / 3600}
    if timed:
        out["tflops"] = sum(work for work, _ in timed) / sum(took for _, took in timed) / 1e12
    return out
