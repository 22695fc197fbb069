"""The renderer of charts: Altair charts as JSON for a page, light or dark, and as SVG and PNG files without a browser.

Colours, fonts and sizes are in `theme` alone, so that a page can show the same chart in light and dark. Ordered things
(budgets, widths) are coloured on one scale from small to large, see `ordered`; things without order by `named`, whose
legend shows each as the chart draws it.
"""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import vl_convert
from PIL import Image

FONT = "system-ui, 'Liberation Sans', Arial, sans-serif"
BLUE, ORANGE, VIOLET, GREEN, AMBER, ROSE, CYAN, GREY = (
    "#3f7ad6,#e8773f,#a056c0,#2e9b76,#d9a11e,#dd5a7d,#4aa3c7,#8a8f98".split(",")
)
NAMED = (BLUE, ORANGE, VIOLET, GREEN, AMBER, ROSE, CYAN, GREY)
"""Colours of things without order, readable on white and on near-black."""

VEGA_LITE = ".".join(alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2])
FILE_WIDTH = 560  # pixels, of a chart that is as wide as where it stands
LEGEND_ENTRIES = 8  # of an ordered scale


@dataclasses.dataclass(frozen=True)
class Colours:
    """What differs between a light and a dark page: text, axes, and the scale from small to large."""

    ink: str
    soft: str
    grid: str
    ramp: tuple[str, ...]


LIGHT = Colours("#24292f", "#59616b", "#e4e0d8", ("#e3a526", "#e9803c", "#d6566a", "#a83d94", "#6c37a6", "#352a78"))
DARK = Colours("#dfe2e6", "#a3abb5", "#33383e", ("#6f5fd0", "#a455c4", "#d4589a", "#ea7160", "#f0994a", "#f6cd5c"))


def theme(dark: bool = False) -> dict[str, Any]:
    """The Vega-Lite config of all charts; marks of the styles "outlined" and "reference" take the colour of text."""
    colours = DARK if dark else LIGHT
    axis: dict[str, Any] = {
        "gridColor": colours.grid,
        "domainColor": colours.grid,
        "tickColor": colours.grid,
        "labelColor": colours.soft,
    }
    axis |= {"titleColor": colours.ink, "titleFontWeight": "normal", "titleFontSize": 12, "labelFontSize": 11}
    legend: dict[str, Any] = {
        "title": None,
        "orient": "bottom",
        "columns": 3,
        "labelColor": colours.ink,
        "labelFontSize": 12,
    }
    return {
        "font": FONT,
        "background": None,
        "view": {"stroke": None},
        "axis": {**axis, "labelPadding": 4, "labelLimit": 240, "titlePadding": 8},
        # The title of y stands above its axis, where no tick label is.
        "axisY": {"titleAngle": 0, "titleAlign": "left", "titleBaseline": "bottom", "titleX": 0, "titleY": -8},
        "title": {"color": colours.ink, "fontSize": 13, "fontWeight": 600, "anchor": "start", "offset": 14},
        "legend": {
            **legend,
            "labelLimit": 320,
            "symbolSize": 90,
            "symbolOpacity": 1,
            "columnPadding": 18,
            "rowPadding": 4,
        },
        "range": {"ramp": list(colours.ramp), "category": list(NAMED)},
        "style": {
            "outlined": {"stroke": colours.ink, "strokeWidth": 1.2},
            "reference": {"color": colours.soft, "strokeDash": [2, 3], "strokeWidth": 1.3},
            "label": {"color": colours.ink, "fontSize": 11},
        },
    }


# Shapes of points, and of things in a legend, as Vega takes them: names, or paths within [-1, 1].
DOT, DIAMOND = "circle", "diamond"
STAR = "M0,-1L.29,-.4L.95,-.31L.48,.15L.59,.81L0,.5L-.59,.81L-.48,.15L-.95,-.31L-.29,-.4Z"
RING = "M1,0A1,1,0,1,1,-1,0A1,1,0,1,1,1,0ZM.6,0A.6,.6,0,1,0,-.6,0A.6,.6,0,1,0,.6,0Z"
OPEN_DIAMOND = "M0,-1L.8,0L0,1L-.8,0ZM0,-.55L-.44,0L0,.55L.44,0Z"
LINE = "M-1.4,-.16H1.4V.16H-1.4Z"
DASHES = "M-1.4,-.16H-.7V.16H-1.4ZM-.35,-.16H.35V.16H-.35ZM.7,-.16H1.4V.16H.7Z"
BAND = "M-1.4,-.6H1.4V.6H-1.4Z"


@dataclasses.dataclass(frozen=True)
class Named:
    """One thing in a legend: its name, colour and shape."""

    name: str
    colour: str
    shape: str = DOT


def named(things: Sequence[Named], columns: int | None = None) -> tuple[alt.Color, alt.Shape]:
    """Encodings of colour and shape of rows whose `series` is the name of a thing; one legend, if there are several.

    `columns` of the legend are the theme's unless they are given.
    """
    names = [thing.name for thing in things]
    legend: Any = (alt.Legend(columns=columns) if columns else alt.Legend()) if len(names) > 1 else None
    colours = alt.Scale(domain=names, range=[thing.colour for thing in things])
    shapes = alt.Scale(domain=names, range=[thing.shape for thing in things])
    return (
        alt.Color("series:N", scale=colours, legend=legend),
        alt.Shape("series:N", scale=shapes, legend=legend),
    )


def ordered(field: str, values: Iterable[float], labels: str = "datum.label", shown: Sequence[float] = ()) -> alt.Color:
    """Encoding of colour by a positive number, from small to large on one logarithmic scale.

    Args:
      field: of the rows.
      values: that it takes.
      labels: Vega expression of a name in the legend.
      shown: values in the legend; empty = all, or round numbers between them if they are many.
    """
    known = sorted({float(value) for value in values})
    low, high = known[0], known[-1]
    scale = alt.Scale(type="log", domain=[low, high] if high > low else [low / 2, high * 2], range="ramp")
    if shown:
        known = [float(value) for value in shown]
    elif len(known) > LEGEND_ENTRIES:
        known = [tick for tick in log_ticks(low, high) if low <= tick <= high]
    legend = alt.Legend(type="symbol", symbolType=DOT, values=known, labelExpr=labels, columns=3)
    return alt.Color(f"{field}:Q", scale=scale, legend=legend)


def shade(place: int, count: int) -> str:
    """The colour of one of `count` ordered things, from small to large, in a file."""
    at = place * (len(LIGHT.ramp) - 1) / max(count - 1, 1)
    low, high = LIGHT.ramp[int(at)], LIGHT.ramp[min(int(at) + 1, len(LIGHT.ramp) - 1)]
    parts = ((int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{round(a + (b - a) * (at % 1)):02x}" for a, b in parts)


def power_label(value: str = "datum.value") -> str:
    """Vega expression of a large number: 1.5e12 (few fonts have all raised digits)."""
    return f"replace(format({value}, '.2~e'), '+', '')"


def log_ticks(low: float, high: float) -> list[float]:
    """Places for labels on a logarithmic axis: 1, 2, 5 of every decade, fewer over several, even steps within a part.

    They reach past the ends, so that an axis that is moved still has some.
    """
    decades = np.log10(high / low)
    if decades < 0.7:
        rough = max(high - low, 0.01 * high) / 4
        unit = 10.0 ** np.floor(np.log10(rough))
        step = unit * next(m for m in (1, 2, 5, 10) if m * unit >= rough * (1 - 1e-9))
        first, last = max(1, int(np.floor(low / 2 / step))), int(np.ceil(2 * high / step))
        return [float(f"{step * i:.10g}") for i in range(first, last + 1)]
    places = (1,) if decades > 3.5 else (1, 3) if decades > 1.7 else (1, 2, 5)
    powers = range(int(np.floor(np.log10(low))) - 1, int(np.ceil(np.log10(high))) + 2)
    return [float(f"{place}e{power}") for power in powers for place in places]


def axis(channel: str, field: str, title: str, values: Any, *, log: bool = True, powers: bool = False) -> Any:
    """The encoding of x or y, with labels that suit the values.

    Args:
      channel: "x" or "y".
      field: of the rows.
      title: of the axis.
      values: all that is drawn along it, in any order; those that are not finite do not count.
      log: on a logarithmic scale, if all values are positive.
      powers: large numbers are written 1e12, not 1T.
    """
    known = np.asarray(values, np.float64).ravel()
    known = known[np.isfinite(known)]
    make = alt.X if channel == "x" else alt.Y
    if not log or not len(known) or known.min() <= 0:
        words: dict[str, Any] = {"format": "~s"} if len(known) and known.max() >= 1e4 else {}
        marks = alt.Axis(tickCount=5, **words)
        return make(f"{field}:Q", title=title, scale=alt.Scale(zero=False, padding=12), axis=marks)
    low, high = float(known.min()), float(known.max())
    if channel == "x" and high < 1.5 * low:  # one budget so far: not a magnified sliver of it
        low, high = low / 5, high * 5
    words = {"labelExpr": power_label()} if powers else {"format": "~s" if low >= 1e3 else ".4~g"}
    marks = alt.Axis(values=log_ticks(low, high), labelOverlap="greedy", labelSeparation=6, **words)
    scale = alt.Scale(type="log", domain=[low, high], nice=False, padding=12)
    return make(f"{field}:Q", title=title, scale=scale, axis=marks)


def spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as Vega-Lite JSON without its theme, for `theme` to be added by what draws it."""
    made = chart.to_dict(validate=False)  # validation takes seconds for thousands of rows
    for part in ("config", "$schema"):
        made.pop(part, None)
    return made


def standalone(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """A chart as Vega-Lite JSON with its light theme on white and a width of its own, for a file or a notebook."""
    made = spec(chart) | {"config": {**theme(), "background": "white", "padding": 10}}
    if made.get("width") == "container":  # of a page
        made["width"] = FILE_WIDTH
    return made


class Shown:
    """A chart in a notebook: one to zoom where scripts run, and a picture for where they do not."""

    def __init__(self, chart: alt.TopLevelMixin) -> None:
        self._chart = chart

    def _repr_mimebundle_(self, **asked: Any) -> dict[str, Any]:
        del asked
        with alt.renderers.enable("html"):
            bundle: Any = alt.Chart.from_dict(standalone(self._chart))._repr_mimebundle_()
        return {**bundle, "image/png": png(self._chart, scale=1)}


def show(chart: alt.TopLevelMixin) -> Shown:
    """The same as a chart that a notebook shows."""
    return Shown(chart)


def save(chart: alt.TopLevelMixin, path: str | Path) -> list[Path]:
    """Writes PATH.svg and PATH.png, the same bytes whenever they are drawn; gives both."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    svg, png_path = (path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png"))
    svg.write_text(vl_convert.vegalite_to_svg(standalone(chart), VEGA_LITE), encoding="utf-8")
    png_path.write_bytes(png(chart))
    return [svg, png_path]


def png(chart: alt.TopLevelMixin, scale: int = 2) -> bytes:
    """The chart as a PNG of `scale` pixels for each of its own, the same bytes whenever it is drawn."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(vl_convert.vegalite_to_png(standalone(chart), VEGA_LITE, scale=scale))) as drawn:
        drawn.convert("RGB").quantize(64).save(file, "PNG", optimize=True)  # a third of the bytes
    return file.getvalue()


@functools.cache
def scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script for a page that fetches nothing."""
    made = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", VEGA_LITE)
    return made.replace("</script", "<\\/script")
