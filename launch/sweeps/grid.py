"""What a sweep varies: products, zips and chains over dotted config fields.

product(over("model.width", 16, 32), over("seed", 0, 1))                            four runs
zipped(over("model.width", 16, 32), over("optimizer.learning_rate", 8e-3, 4e-3))    two runs
chain(point({"train.steps": 100}), product(...))                                    one run and then those
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from vdit.errors import UserError


class Points:
    """Runs of a sweep, each as {dotted field: value}, in order."""

    def __init__(self, points: list[dict[str, Any]]):
        self._points = tuple(points)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(point) for point in self._points)

    def __len__(self) -> int:
        return len(self._points)


class IsoFlop(Points):
    """The runs of an iso-FLOP grid; `launch.sweep` prints their plan before it starts them."""


def point(values: Mapping[str, Any]) -> Points:
    """One run."""
    return Points([dict(values)])


def over(field: str, *values: Any) -> Points:
    """One run for each value of a field."""
    return Points([{field: value} for value in values])


def product(*axes: Points) -> Points:
    """Every combination of a run of each axis; the last axis varies fastest.

    Raises:
      UserError: if two axes set the same field.
    """
    return Points([_join(points) for points in itertools.product(*axes)])


def zipped(*axes: Points) -> Points:
    """The first of every axis together, the second of every axis, and so on.

    Raises:
      UserError: if the axes differ in length or two set the same field.
    """
    lengths = [len(axis) for axis in axes]
    if len(set(lengths)) > 1:
        raise UserError(f"zipped() takes axes of one length, not of {', '.join(map(str, lengths))}")
    return Points([_join(points) for points in zip(*axes, strict=True)])


def chain(*sweeps: Points) -> Points:
    """The runs of all, one after another."""
    return Points([run for sweep in sweeps for run in sweep])


def _join(points: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for values in points:
        twice = out.keys() & values.keys()
        if twice:
            raise UserError(f"two axes of a sweep set {sorted(twice)[0]}; chain() puts runs one after another")
        out |= values
    return out
