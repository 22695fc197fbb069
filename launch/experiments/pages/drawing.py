"""Drawing the figures of an experiment from the rows of its runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from launch.experiments.spec import Experiment, Figure
from launch.experiments.stats import of_arm
from vdit.render import charts, panels
from vdit.render.panels import Panel, Series
from vdit.scaling.laws.seeds import Mean, mean

Rows = Sequence[Mapping[str, Any]]


def draw(experiment: Experiment, rows: Rows, floors: Mapping[str, float], docs: Path) -> list[Path]:
    """Writes docs/figures/NAME.svg and .png; gives both, or nothing where nothing of the figures was measured."""
    drawn = [made for figure in experiment.figures if (made := panel(figure, rows, floors))]
    return charts.save(panels.beside(drawn), docs / "figures" / experiment.name) if drawn else []


def panel(figure: Figure, rows: Rows, floors: Mapping[str, float]) -> Panel | None:
    """One panel; None where nothing of it was measured."""
    arms = list(dict.fromkeys(row["arm"] for row in rows if any(metric in row for metric in figure.y)))
    groups = list(dict.fromkeys(row["group"] for row in rows if row["arm"] in arms)) if figure.x != "arm" else [""]
    series: list[Series] = []
    for metric in figure.y:
        for group in groups:
            points = _points(figure, rows, metric, [a for a in arms if not group or _group(rows, a) == group], arms)
            if points:
                x, means = zip(*points, strict=True)
                shown = group if len(groups) > 1 else ""
                name = ", ".join(part for part in (metric if len(figure.y) > 1 else "", shown) if part)
                low, high = _ends(means, figure.log_y)
                values = [m.value for m in means]
                joined = figure.x != "arm"
                series.append(Series(name, x, values, low, high, line=joined))
    if not series:
        return None
    level = ("true clips", floors[figure.floor]) if figure.floor in floors else None
    labels = arms if figure.x == "arm" else ()
    if labels:
        series = [_aside(each, place - (len(series) - 1) / 2) for place, each in enumerate(series)]
    title = {"arm": "", "flops": "training FLOPs"}.get(figure.x, figure.x.replace("_", " "))
    return Panel(title, figure.y_title, series, "", figure.log_x, figure.log_y, level, labels)


def _aside(series: Series, places: float) -> Series:
    """Moved beside its arm's place, so that no interval hides another."""
    return dataclasses.replace(series, x=[x + 0.12 * places for x in series.x])


def _ends(means: Sequence[Mean], log: bool) -> tuple[list[float], list[float]]:
    """Ends of the intervals as they are drawn: none for one seed, and none at or below 0 on a log axis."""
    low = [m.value if math.isinf(m.low) else m.low for m in means]
    high = [m.value if math.isinf(m.high) else m.high for m in means]
    if log:
        low = [max(end, m.value / 10) for end, m in zip(low, means, strict=True)]
    return low, high


def _group(rows: Rows, arm: str) -> str:
    return str(next(row["group"] for row in rows if row["arm"] == arm))


def _points(figure: Figure, rows: Rows, metric: str, arms: Sequence[str], all_arms: Sequence[str]) -> list[Any]:
    """(x, mean over seeds) of each arm that has the metric, by rising x."""
    found = []
    for arm in arms:
        values = list(of_arm(rows, arm, metric).values())
        if values:
            x = all_arms.index(arm) if figure.x == "arm" else mean(list(of_arm(rows, arm, figure.x).values())).value
            found.append((x, mean(values)))
    return sorted(found, key=lambda point: point[0])
