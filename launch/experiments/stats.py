"""Means over seeds with their intervals, and whether two arms differ."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vdit.scaling.laws.seeds import LEVEL, Mean, mean

Rows = Sequence[Mapping[str, Any]]
SMALL = 0.05
"""A null result decides a question if it excludes a relative change of this size."""


def of_arm(rows: Rows, arm: str, metric: str) -> dict[int, float]:
    """The metric of an arm's runs by seed, where it was measured."""
    return {
        int(row["seed"]): float(row[metric])
        for row in rows
        if row["arm"] == arm and isinstance(row.get(metric), (int, float)) and math.isfinite(row[metric])
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One arm against another, seed by seed.

    Attributes:
      ratio: whether `change` is a ratio minus 1 (all values are positive) or a difference.
      change: mean over seeds that both have.
    """

    metric: str
    arm: str
    other: str
    ratio: bool
    change: Mean

    @property
    def verdict(self) -> str:
        """What its interval says."""
        if self.change.low > 0:
            return "higher"
        return "lower" if self.change.high < 0 else "no difference shown"

    @property
    def decision(self) -> str:
        """The verdict; where no difference is shown, whether one of `SMALL` is excluded."""
        if self.change.count < 2:
            return "one seed"
        if self.verdict != "no difference shown":
            return self.verdict
        reach = max(abs(self.change.low), abs(self.change.high))
        return f"less than {reach:.1%} either way" if self.ratio and reach < SMALL else "undecided"

    @property
    def _form(self) -> str:
        return "{:+.1%}" if self.ratio else "{:+.3g}"

    def effect(self) -> str:
        """The change with its interval."""
        value, low, high = (self._form.format(x) for x in (self.change.value, self.change.low, self.change.high))
        return f"{value} ({low} to {high}), {self.change.count} seeds" if self.change.count > 1 else value

    def words(self) -> str:
        """A sentence."""
        form = self._form
        names = f"`{self.metric}` of *{self.arm}* against *{self.other}*"
        if self.change.count < 2:
            return f"{names}: {form.format(self.change.value)} with one seed, which shows nothing."
        said = [form.format(value) for value in (self.change.value, self.change.low, self.change.high)]
        return (
            f"{names}: **{self.verdict}**, {said[0]} "
            f"({LEVEL:.0%} interval over {self.change.count} seeds {said[1]} to {said[2]})."
        )


def compare(rows: Rows, metric: str, arm: str, other: str) -> Comparison | None:
    """Pairs the seeds of two arms; None without a seed that both have."""
    one, two = (of_arm(rows, name, metric) for name in (arm, other))
    seeds = sorted(one.keys() & two.keys())
    if not seeds:
        return None
    a, b = (np.array([values[seed] for seed in seeds]) for values in (one, two))
    ratio = bool((a > 0).all() and (b > 0).all())
    if not ratio:
        return Comparison(metric, arm, other, False, mean((a - b).tolist()))
    logs = mean(np.log(a / b).tolist())
    centre, low, high = (math.expm1(min(value, 700.0)) for value in (logs.value, logs.low, logs.high))
    return Comparison(metric, arm, other, True, Mean(centre, low, high, logs.count))
