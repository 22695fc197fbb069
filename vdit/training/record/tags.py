"""What the numbers of a row of metrics are called where curves are looked at: group/name."""

from __future__ import annotations

import math
from typing import Any

NAMES = {
    "loss": "train/loss",
    "grad_norm": "train/gradient_norm",
    "rate": "train/learning_rate",
    "skipped_updates": "train/skipped_updates",
    "patches": "seen/patches",
    "text": "seen/caption_tokens",
    "examples": "seen/examples",
    "flops": "seen/training_flops",
    "tokens_per_second": "speed/tokens_per_second",
    "tflops": "speed/tflops_per_second",
    "mfu": "speed/model_flop_utilisation",
    "goodput": "time/goodput",
    "data_wait": "time/share_waiting_for_data",
    "seconds": "time/seconds_of_attempt",
}
HIDDEN = ("step", "began", "started", "productive_seconds")
"""What metrics.jsonl keeps for accounts, and no curve shows."""


def tagged(row: dict[str, Any]) -> dict[str, float]:
    """The finite numbers of a row of metrics by tag.

    What has been seen, speed and times stand in the row of a step; that of an evaluation repeats them.
    """
    own = {name: value for name, value in row.items() if name not in (*HIDDEN, "validation")}
    out = {NAMES.get(name, f"train/{name}"): value for name, value in _numbers(own, "").items()}
    if "validation" in row:
        out = {tag: value for tag, value in out.items() if tag.startswith("train/")}
        out |= _numbers(row["validation"], "validation/")
    return out


def _numbers(values: dict[str, Any], prefix: str) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            out |= _numbers(value, f"{prefix}{name}/")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            out[f"{prefix}{name}"] = float(value)
    return out
