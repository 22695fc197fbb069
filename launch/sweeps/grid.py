"""What a sweep varies: products, zips and chains over dotted config fields.

product(over("model.width", 16, 32), over("seed", 0, 1))                            four runs
zipped(over("model.width", 16, 32), over("optimizer.learning_rate", 8e-3, 4e-3))    two runs
chain(point({"train.steps": 100}), product(...))                                    one run and then those
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vdit.errors import UserError

MIN_BUDGETS, MIN_SIZES = 3, 4
Fields = Mapping[str, Any]


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


def size(width: int, depth: int = 2, head_width: int = 0, **more: Any) -> dict[str, Any]:
    """One model size, as fields of the config; `more` are others, with __ for the dot: data__rows_per_step=4."""
    head = head_width or next(h for h in (32, 24, 16, 12, 8, 4, 2, 1) if width % h == 0)
    fields = {name.replace("__", "."): value for name, value in more.items()}
    return {"model.width": width, "model.depth": depth, "model.head_width": head, **fields}


def size_name(fields: Fields) -> str:
    """A size by its width and depth, as in the names of runs: w32d2."""
    return f"w{fields['model.width']}d{fields['model.depth']}"


def check_grid(cells: Sequence[tuple[float, Sequence[Fields]]]) -> None:
    """Checks that an iso-FLOP grid can have minima.

    Args:
      cells: (budget of training FLOPs, sizes that it is spent on).

    Raises:
      UserError: if it has too few budgets with enough sizes, or its budgets are too close.
    """
    sizes = {budget: len({tuple(sorted(fields.items())) for fields in tried}) for budget, tried in cells}
    if len(sizes) < MIN_BUDGETS:
        raise UserError(f"isoflop: {len(sizes)} budgets; a power law of their minima needs {MIN_BUDGETS}")
    enough = [budget for budget, count in sizes.items() if count >= MIN_SIZES]
    if len(enough) < MIN_BUDGETS:
        raise UserError(
            f"isoflop: a budget has {min(sizes.values())} sizes; a grid needs at least {MIN_BUDGETS} budgets of "
            f"{MIN_SIZES} sizes each to have minima"
        )
    if max(sizes) < 4 * min(sizes):
        raise UserError(f"isoflop: budgets span a factor {max(sizes) / min(sizes):.2g}; an exponent needs 4")


def _join(points: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for values in points:
        twice = out.keys() & values.keys()
        if twice:
            raise UserError(f"two axes of a sweep set {sorted(twice)[0]}; chain() puts runs one after another")
        out |= values
    return out
