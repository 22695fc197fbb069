"""Figures of the fitted law: the best size and data for a budget, contours of equal loss, residuals, held-out runs."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np

from vdit.render import charts
from vdit.render.charts import BLUE, ORANGE, VIOLET, Named
from vdit.scaling.laws.answers import iso_loss
from vdit.scaling.laws.law import LEVEL, central
from vdit.scaling.reporting.analysis import Analysis
from vdit.scaling.reporting.figures import COMPUTE, chart, grid_rows, layers

LAW, INTERVAL, MINIMA, MISSED = (
    "law",
    f"its {LEVEL:.0%} interval",
    "minima of the parabolas",
    "missed by more than 3 spreads",
)
CONTOURS, POINTS = 7, 60


def best_params(found: Analysis) -> alt.LayerChart | None:
    """N_opt(C), with its interval and the minima of the parabolas."""
    return _best(found, "params", "best size N, parameters")


def best_tokens(found: Analysis) -> alt.LayerChart | None:
    """D_opt(C), as `best_params`."""
    return _best(found, "tokens", "best amount of data D")


def _best(found: Analysis, name: str, title: str) -> alt.LayerChart | None:
    if found.fit is None or found.grid is None:
        return None
    fit, top = found.fit, found.prediction.flops if found.prediction else found.grid.flops.max()
    rows: list[dict[str, Any]] = []
    for cost in np.geomspace(found.grid.flops.min(), top, POINTS):

        def best(law: Any, cost: float = cost) -> Any:
            params = law.optimal_params(cost, fit.cost)
            return params if name == "params" else fit.cost.tokens(cost, params)

        span = central(best(fit.resamples))
        row = {"flops": float(cost), "value": float(best(fit.law)), "series": LAW}
        rows.append(row | ({"low": float(span[0]), "high": float(span[1])} if span else {}))
    if not all(0 < row["value"] < np.inf for row in rows):  # an exponent of 0: nothing is best
        return None
    points: list[dict[str, Any]] = [
        {"flops": p.budget, "value": p.params if name == "params" else float(fit.cost.tokens(p.budget, p.params))}
        for p in (found.isoflop.parabolas if found.isoflop else ())
        if not p.edge
    ]
    points = [{**row, "series": MINIMA} for row in points]
    x = charts.axis("x", "flops", COMPUTE, [row["flops"] for row in rows], powers=True)
    y = charts.axis("y", "value", title, [row["value"] for row in [*rows, *points]])
    bands = [{**row, "series": INTERVAL} for row in rows if "low" in row]
    things = [Named(LAW, BLUE, charts.LINE), *([Named(INTERVAL, BLUE + "40", charts.BAND)] if bands else [])]
    things += [Named(MINIMA, VIOLET, charts.DIAMOND)] if points else []
    colour, shape = charts.named(things)
    tooltip = [alt.Tooltip("flops:Q", format=".2e", title="C"), alt.Tooltip("value:Q", format=".3~s")]
    return layers(
        chart(bands, x, alt.Y("low:Q"), y2="high:Q", color=colour).mark_area(clip=True),
        chart(rows, x, y, color=colour, tooltip=tooltip).mark_line(strokeWidth=2.2),
        chart(points, x, y, color=colour, shape=shape, tooltip=tooltip).mark_point(filled=True, opacity=1, size=110),
    )


def contours(found: Analysis) -> alt.LayerChart | None:
    """Lines of equal loss over size and data, the runs, and the path of the best size."""
    if found.fit is None or found.grid is None:
        return None
    law, grid = found.fit.law, found.grid
    sizes = np.geomspace(grid.params.min() / 1.5, grid.params.max() * 1.5, POINTS)
    low, high = grid.tokens.min() / 1.5, grid.tokens.max() * 1.5
    lines = []
    levels = np.geomspace(grid.loss.min(), grid.loss.max(), CONTOURS)
    for loss in levels:
        tokens = iso_loss(law, float(loss), sizes)
        inside = (tokens >= low) & (tokens <= high)
        lines += [
            {"params": float(n), "tokens": float(d), "loss": float(loss)}
            for n, d in zip(sizes[inside], tokens[inside], strict=True)
        ]
    costs = np.geomspace(grid.flops.min(), grid.flops.max(), POINTS)
    best = np.asarray(law.optimal_params(costs, found.fit.cost), np.float64)
    path = [
        {"params": float(n), "tokens": float(d), "flops": float(c)}
        for n, d, c in zip(best, found.fit.cost.tokens(costs, best), costs, strict=True)
        if sizes[0] <= n <= sizes[-1] and low <= d <= high
    ]
    rows = grid_rows(found)
    x = charts.axis("x", "params", "parameters N", sizes)
    y = charts.axis("y", "tokens", "data D", [low, high])
    colour = charts.ordered(
        "loss", [*levels, *grid.loss], "'loss ' + format(datum.value, '.3~g')", shown=levels.tolist()
    )
    tooltip = ["run:N", alt.Tooltip("loss:Q", format=".4~g")]
    return layers(
        chart(lines, x, y, color=colour, detail="loss:N", tooltip=tooltip[1:]).mark_line(strokeWidth=1.5, opacity=0.8),
        chart(path, x, y, order="flops:Q").mark_line(style="reference", strokeWidth=2),
        chart(rows, x, y, color=colour, tooltip=tooltip).mark_point(filled=True, opacity=1, size=60),
    )


def residuals(found: Analysis) -> alt.LayerChart | None:
    """How far each run lies from the law, in per cent of its loss; those far beyond the others stand out."""
    if found.fit is None or found.grid is None:
        return None
    off = np.expm1(found.fit.residuals_R)
    centre = np.median(off)
    spread = 1.4826 * np.median(np.abs(off - centre))
    rows = [
        {**row, "residual": float(value), "series": MISSED if abs(value - centre) > 3 * spread else "runs"}
        for row, value in zip(grid_rows(found), off, strict=True)
    ]
    things = [Named("runs", BLUE), *([Named(MISSED, ORANGE)] if any(row["series"] == MISSED for row in rows) else [])]
    colour, shape = charts.named(things)
    x = charts.axis("x", "flops", COMPUTE, found.grid.flops, powers=True)
    y = charts.axis("y", "residual", "measured loss over the law's, minus 1", off, log=False)
    y.axis = alt.Axis(format="+.1%", tickCount=5)
    tooltip = ["run:N", alt.Tooltip("residual:Q", format="+.2%"), alt.Tooltip("params:Q", format=".3~s", title="N")]
    return layers(
        chart([{"residual": 0.0}], None, y).mark_rule(style="reference"),
        chart(rows, x, y, color=colour, shape=shape, tooltip=tooltip).mark_point(filled=True, opacity=0.85, size=50),
    )
