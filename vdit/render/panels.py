"""Lines and points of a few series on one or more pairs of axes: the figures of documentation."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from vdit.render import charts

WIDTH, HEIGHT = 400, 280  # pixels of a panel
LABEL_WIDTH = 92  # pixels that the name of a place on x has at least
CHARACTER = 6.6  # pixels of one on average


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes:
      name: in the legend; empty = not there.
      x, y: points; nan is left out.
      low, high: ends of their intervals; empty = none.
      line: whether points are joined.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray = ()
    high: Sequence[float] | np.ndarray = ()
    line: bool = True


@dataclasses.dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
      x_title, y_title: of the axes.
      series: in order.
      title: above it.
      log_x, log_y: logarithmic axes.
      level: (name, value) of a dashed line across, such as a floor.
      labels: names of the places 0, 1, ... of x, instead of numbers.
      ordered: series go from small to large, and so do their colours.
    """

    x_title: str
    y_title: str
    series: Sequence[Series]
    title: str = ""
    log_x: bool = True
    log_y: bool = True
    level: tuple[str, float] | None = None
    labels: Sequence[str] = ()
    ordered: bool = False


def beside(panels: Sequence[Panel]) -> alt.HConcatChart:
    """Panels side by side, each with a legend of its own."""
    made = [_panel(panel) for panel in panels]
    return alt.hconcat(*made, spacing=40).resolve_scale(color="independent", shape="independent")


def _panel(panel: Panel) -> Any:
    width = max(WIDTH, LABEL_WIDTH * len(panel.labels))
    rows = [row for each in panel.series for row in _rows(each)]
    level = [{"series": panel.level[0], "y": float(panel.level[1])}] if panel.level else []
    heights = [row[end] for row in [*rows, *level] for end in ("y", "low", "high") if end in row]
    across = [row["x"] for row in rows]
    y = charts.axis("y", "y", panel.y_title, heights, log=panel.log_y)
    x = _places(panel, width) if panel.labels else charts.axis(
        "x", "x", panel.x_title, across, log=panel.log_x, powers=max(across) >= 1e9
    )  # fmt: skip
    things = _things(panel)
    longest = CHARACTER * max(len(thing.name) for thing in things) + 40
    colour, shape = charts.named(things, columns=max(1, min(3, int(width / longest))))
    base = alt.Chart(alt.Data(values=rows)).encode(x=x, y=y, color=colour)
    tooltip = ["series:N", alt.Tooltip("x:Q", format=".4~g"), alt.Tooltip("y:Q", format=".4~g")]
    layers = [
        base.mark_rule(opacity=0.6, strokeWidth=1.3).encode(alt.Y("low:Q"), alt.Y2("high:Q")),
        base.transform_filter("datum.line").mark_line(strokeWidth=1.6),
        base.mark_point(filled=True, opacity=1, size=36).encode(shape=shape, tooltip=tooltip),
    ]
    if level:
        layers.append(alt.Chart(alt.Data(values=level)).mark_rule(strokeDash=[5, 4]).encode(y=y, color=colour))
    return alt.layer(*layers, title=panel.title, width=width, height=HEIGHT)


def _rows(series: Series) -> list[dict[str, Any]]:
    """The points that are finite, with the ends of their intervals where there are such."""
    low, high = (ends if len(ends) else series.y for ends in (series.low, series.high))
    return [
        {"series": series.name, "line": series.line, "x": float(x), "y": float(y), "low": float(a), "high": float(b)}
        for x, y, a, b in zip(series.x, series.y, low, high, strict=True)
        if np.isfinite(y)
    ]


def _things(panel: Panel) -> list[charts.Named]:
    """The series and the level as a legend shows them."""
    count = len(panel.series)
    colours = [charts.shade(i, count) if panel.ordered else charts.NAMED[i % len(charts.NAMED)] for i in range(count)]
    things = [charts.Named(each.name, colour) for each, colour in zip(panel.series, colours, strict=True)]
    return [*things, *([charts.Named(panel.level[0], charts.GREY, charts.DASHES)] if panel.level else [])]


def _places(panel: Panel, width: int) -> alt.X:
    """Named places along x, their names broken into lines that fit."""
    room = int(width / len(panel.labels) / CHARACTER)
    lines = [textwrap.wrap(label, room, break_long_words=False) for label in panel.labels]
    names = f"{json.dumps(lines)}[datum.value]"
    marks = alt.Axis(values=list(range(len(lines))), labelExpr=names, grid=False, ticks=False, labelFlush=False)
    scale = alt.Scale(domain=[-0.5, len(lines) - 0.5], nice=False, zero=False)
    return alt.X("x:Q", title=panel.x_title or None, scale=scale, axis=marks)
