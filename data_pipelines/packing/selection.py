"""Which examples are trained on, and how often, by what the index says of them: `data.filter` and `data.strata`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from data_pipelines.packing.index import Index
from vdit.config import DataConfig
from vdit.errors import UserError
from vdit.expressions import parse_condition


@dataclasses.dataclass(frozen=True)
class Stratum:
    """Examples of one data set that are visited equally often.

    Attributes:
      number: distinct; that of the data set where it has one stratum only.
      part: number of the data set.
      members: its examples, entries of the index, ascending.
      weight: visits of an example in an epoch, relative to the mean of the data set.
    """

    number: int
    part: int
    members: np.ndarray
    weight: float


def wanted(index: Index, members: Sequence[np.ndarray], config: DataConfig) -> tuple[np.ndarray, ...]:
    """Those members of each data set that meet config.filter.

    Raises:
      UserError: if it names a column that no data set has.
    """
    if not config.filter:
        return tuple(members)
    keeps_N = keeps(index, config)
    return tuple(part[keeps_N[part]] for part in members)


def keeps(index: Index, config: DataConfig) -> np.ndarray:
    """Which examples of an index meet config.filter, which is not empty.

    Raises:
      UserError: if it names a column that no data set has.
    """
    return parse_condition(config.filter, "data.filter")(index.columns())


def strata(index: Index, members: Sequence[np.ndarray], config: DataConfig) -> list[Stratum]:
    """The members of each data set, divided by their quantile of the column of config.strata.

    Equal values are divided by their order, and those that are not known (NaN) come last, so that parts of a data set
    differ in number by one at most.

    Raises:
      UserError: if no data set has the column.
    """
    column, weights = config.strata_weights()
    if not column:
        return [Stratum(part, part, each, 1.0) for part, each in enumerate(members)]
    columns = index.columns()
    if column not in columns:
        there = ", ".join(sorted(columns))
        raise UserError(f"data.strata={config.strata!r}: there is no {column!r}; there are {there}")
    found, mean = [], float(np.mean(weights))
    for part, each in enumerate(members):
        order = np.argsort(columns[column][each], kind="stable")
        for place, (places, weight) in enumerate(zip(np.array_split(order, len(weights)), weights, strict=True)):
            found.append(Stratum(part + place * len(members), part, each[np.sort(places)], weight / mean))
    return found
