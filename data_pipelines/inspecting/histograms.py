"""Histograms of the columns of data sets as a chart: which values examples have, and which of them a filter keeps."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from data_pipelines.packing.index import Index
from vdit.render import charts

BINS = 24
ACROSS, WIDTH, HEIGHT = 3, 220, 100  # charts beside each other, and pixels of one

KEPT, LEFT_OUT = "kept", "left out"


def histograms(index: Index, keeps_N: np.ndarray | None = None) -> alt.TopLevelMixin:
    """A histogram of every column that has more than one value, or of all if none has, beside each other.

    Args:
      index: of the examples.
      keeps_N: which of them a filter keeps; these are told from the others by their colour. None = there is none.
    """
    columns = {name: values_N for name, values_N in index.columns().items() if not np.isnan(values_N).all()}
    varied = {name: values_N for name, values_N in columns.items() if np.nanmin(values_N) < np.nanmax(values_N)}
    drawn = []
    for name, values_N in (varied or columns).items():
        known_N = ~np.isnan(values_N)
        drawn.append(_histogram(name, values_N[known_N], None if keeps_N is None else keeps_N[known_N]))
    return alt.concat(*drawn, columns=ACROSS, spacing=24)


def bins_of(values_N: np.ndarray, keeps_N: np.ndarray | None) -> list[dict[str, Any]]:
    """Bars of a histogram: ends of a bin and the number of its values, those that are kept below the others."""
    low, high = values_N.min(), values_N.max()
    if high - low < BINS and (values_N == np.round(values_N)).all():
        edges = np.arange(low - 0.5, high + 1)  # a bin for each whole number
    else:
        edges = np.linspace(low, high, BINS + 1)
    parts = {KEPT: values_N} if keeps_N is None else {KEPT: values_N[keeps_N], LEFT_OUT: values_N[~keeps_N]}
    bars, base = [], np.zeros(len(edges) - 1, np.int64)
    for series, part in parts.items():
        counts = np.histogram(part, edges)[0]
        bars += [
            {"series": series, "low": float(a), "high": float(b), "from": int(start), "to": int(start + count)}
            for a, b, start, count in zip(edges[:-1], edges[1:], base, counts, strict=True)
            if count
        ]
        base = base + counts
    return bars


def _histogram(name: str, values_N: np.ndarray, keeps_N: np.ndarray | None) -> Any:
    things = [charts.Named(KEPT, charts.BLUE, charts.BAND)]
    things += [] if keeps_N is None else [charts.Named(LEFT_OUT, charts.GREY, charts.BAND)]
    colour, _ = charts.named(things)
    return (
        alt.Chart(alt.Data(values=bins_of(values_N, keeps_N)), title=name, width=WIDTH, height=HEIGHT)
        .mark_bar(binSpacing=1)
        .encode(
            x=alt.X(
                "low:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=4, grid=False)
            ),
            x2="high:Q",
            y=alt.Y("to:Q", title=None, axis=alt.Axis(tickCount=3, tickMinStep=1)),
            y2="from:Q",
            color=colour,
            tooltip=[alt.Tooltip(f"{end}:Q", format=".4~g") for end in ("low", "high", "from", "to")],
        )
    )
