"""What was measured of runs besides their cost, found from the columns of their rows: no new measure is lost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeGuard

from vdit.scaling.runs import COLUMNS

ENDS = ("_low", "_high")
SIDES = {"in": "in distribution", "out": "out of distribution"}
"""Endings of the columns of one measure on two splits."""
OUT = "_ood"
"""Ending of the column of another measure, out of distribution."""

_MEASURED = ("loss", "loss_ood", "velocity")
_ACCOUNT = {name for name in COLUMNS if not name.startswith(_MEASURED)} | {
    *("data_wait", "started", "arm", "group", "what", "attempts", "machine_hours", "cost", "derived_tokens")
}


@dataclasses.dataclass(frozen=True)
class Measure:
    """One measured quantity, on one split or on several.

    Attributes:
      name: of its column, or what those of its splits have in common.
      columns: column -> name of the split, "" for the only one.
      title, unit: what it is, as its experiment says; else what its name says.
      heading: of its own section of a page; "" = it has none.
      text: about it, for a reader.
      better: "lower" or "higher"; "" = unknown.
    """

    name: str
    columns: Mapping[str, str]
    title: str
    unit: str = ""
    heading: str = ""
    text: str = ""
    better: str = ""


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Columns of numbers that were measured, the loss included, in the order in which they first appear.

    Left out are what a run is and costs, ends of intervals, and the parts of its validation.
    """
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name, value in row.items() if is_number(value))
    return [
        name
        for name in names
        if name not in _ACCOUNT
        and not name.startswith("validation_")
        and not (name.endswith(ENDS) and name.removesuffix("_low").removesuffix("_high") in names)
    ]


def measures(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> list[Measure]:
    """The measures but the loss, columns of the splits of one together.

    Args:
      rows: of runs.
      about: measure -> what its experiment says of it: title, unit, heading, text, better.
    """
    found: dict[str, dict[str, str]] = {}
    for column in columns(rows):
        stem, _, side = column.rpartition("_")
        if column == "loss":
            continue
        if stem and side in SIDES:
            found.setdefault(stem, {})[column] = SIDES[side]
        else:
            found[column] = {column: ""}
    described = {name: dict(about[name]) if isinstance(about.get(name), Mapping) else {} for name in [*about, *found]}
    order = [name for name in described if name in found]  # those that are described come first, in their order
    words = {field.name for field in dataclasses.fields(Measure)} - {"name", "columns"}
    made = []
    for name in order:
        said = {key: str(value) for key, value in described[name].items() if key in words}
        if said.get("better") not in ("lower", "higher"):
            said["better"] = ""
        made.append(Measure(name, found[name], **{**_guessed(name, about), **said}))
    return made


def _guessed(name: str, about: Mapping[str, Any]) -> dict[str, str]:
    """Title and unit of a measure that nobody described, by its name; parts of a described one are called after it."""
    whole = max((known for known in about if name.startswith(f"{known}_")), key=len, default="")
    said = about[whole] if whole and isinstance(about[whole], Mapping) else {}
    if "title" not in said:
        apart = f", {SIDES['out']}" if name.endswith(OUT) else ""
        return {"title": name.removesuffix(OUT).replace("_", " ") + apart}
    part = name.removeprefix(f"{whole}_").replace("_", " ")
    return {"title": f"{said['title']}: {part}", **({"unit": str(said["unit"])} if said.get("unit") else {})}


def varies(measure: Measure, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it differs between runs, so that there is something to draw."""
    return any(len({row[c] for row in rows if is_number(row.get(c))}) > 1 for c in measure.columns)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
