"""The figures of a study, as plotly figures that a report, a notebook and a PNG share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from vdit.io.formatting import flops
from vdit.scaling.laws.laws import LEVEL, central
from vdit.scaling.reporting.analysis import Analysis, envelope
from vdit.scaling.runs import Run

# Readable on white and on near-black; a report swaps INK and GRID for the page's own colours.
RAMP = ("#3f7ad6", "#7d66d3", "#b757b4", "#dd5a7d", "#e8773f", "#d9a11e")
INSIDE, OUTSIDE = "#3f7ad6", "#e8773f"
STAR, MUTED, INK, GRID = "#d9a11e", "#8a8f98", "#24292f", "rgba(128,128,128,0.22)"
GRID_HEX = "#e2dfd8"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
_DRAWN_POINTS = 240  # of a training curve


def ramp(place: int, count: int) -> str:
    """The colour of one of `count` ordered things."""
    return RAMP[round(place * (len(RAMP) - 1) / max(count - 1, 1))] if count > 1 else RAMP[0]


def translucent(colour: str, opacity: float) -> str:
    """A #rrggbb colour with an opacity."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def isoflop(found: Analysis) -> go.Figure | None:
    """Loss against size at each budget, with parabolas and their minima; open minima lie outside the sizes tried."""
    if found.grid is None or found.isoflop is None:
        return None
    figure, grid = _blank("parameters N, without embeddings", "validation loss"), found.grid
    by_row = {int(row): p for p in found.isoflop.parabolas for row in p.rows}
    budgets = sorted({_budget(found, i, by_row) for i in range(len(grid))})
    for place, budget in enumerate(budgets):
        colour = ramp(place, len(budgets))
        rows = np.array([i for i in range(len(grid)) if _budget(found, i, by_row) == budget])
        parabola = by_row.get(int(rows[0]))
        name = f"{flops(budget)} FLOPs"
        if parabola is not None:
            n = np.geomspace(grid.params[rows].min() / 1.15, grid.params[rows].max() * 1.15, 80)
            figure.add_scatter(
                x=n, y=parabola(n), mode="lines", line={"color": translucent(colour, 0.75), "width": 2},
                legendgroup=name, showlegend=False, hoverinfo="skip",
            )  # fmt: skip
        figure.add_scatter(
            x=grid.params[rows], y=grid.loss[rows], mode="markers", name=name, legendgroup=name,
            marker={"color": colour, "size": 8}, customdata=_hover(grid, rows), hovertemplate=_HOVER,
        )  # fmt: skip
        if parabola is not None and np.isfinite(parabola.params):
            inside = not parabola.edge
            figure.add_scatter(
                x=[parabola.params], y=[parabola.loss], mode="markers", legendgroup=name, showlegend=False,
                marker={
                    "symbol": "diamond" if inside else "diamond-open", "size": 13, "color": colour,
                    "line": {"width": 2, "color": INK if inside else colour},
                },
                hovertemplate=f"{parabola.edge or 'minimum'}<br>N = %{{x:.3s}}<br>loss %{{y:.4f}}<extra>{name}</extra>",
            )  # fmt: skip
    return _log_axes(figure, x=grid.params)


def compute(found: Analysis) -> go.Figure | None:
    """Loss against compute: the runs, what the law says a budget buys, and the held-out run against its prediction."""
    if found.grid is None:
        return None
    figure, grid, said = _blank("training compute C, FLOPs", "validation loss"), found.grid, found.prediction
    costs, losses = list(grid.flops), list(grid.loss)
    if said is not None:
        costs.append(said.flops)
        losses += [value for value in (said.loss, said.measured) if value]
    if found.fit is not None:
        _law_band(figure, found, np.geomspace(min(costs) / 1.3, max(costs) * 1.6, 60))
    figure.add_scatter(
        x=grid.flops, y=grid.loss, mode="markers", name="runs of the grid",
        customdata=_hover(grid, np.arange(len(grid))), marker={"color": MUTED, "size": 7, "opacity": 0.75},
        hovertemplate=_HOVER,
    )  # fmt: skip
    minima = [p for p in (found.isoflop.parabolas if found.isoflop else ()) if not p.edge]
    if minima:
        figure.add_scatter(
            x=[p.budget for p in minima], y=[p.loss for p in minima], mode="markers", name="minima of the parabolas",
            marker={"symbol": "diamond", "size": 11, "color": RAMP[2], "line": {"width": 1.5, "color": INK}},
            hovertemplate="minimum at %{x:.2e}<br>loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
    if said is not None:
        _held_out(figure, found)
    return _log_axes(figure, x=costs, y=losses)


def _law_band(figure: go.Figure, found: Analysis, costs: np.ndarray) -> None:
    """L_opt(C) with its bootstrap interval."""
    assert found.fit is not None
    law, cost = found.fit.law, found.fit.cost
    figure.add_scatter(
        x=costs, y=law.optimal_loss(costs, cost), mode="lines", name="law, at the best size",
        line={"color": RAMP[0], "width": 2.5}, hovertemplate="law at %{x:.2e}<br>loss %{y:.4f}<extra></extra>",
    )  # fmt: skip
    spans = [central(found.fit.resamples.optimal_loss(c, cost)) for c in costs]
    if all(spans):
        low, high = np.array(spans).T
        figure.add_scatter(
            x=np.concatenate([costs, costs[::-1]]), y=np.concatenate([low, high[::-1]]), fill="toself", mode="lines",
            line={"width": 0}, fillcolor=translucent(RAMP[0], 0.16), name=f"its {LEVEL:.0%} interval", hoverinfo="skip",
        )  # fmt: skip


def _held_out(figure: go.Figure, found: Analysis) -> None:
    """Prediction with its interval, measurement, and the baseline."""
    said, grid = found.prediction, found.grid
    assert said is not None and grid is not None
    figure.add_scatter(
        x=[grid.flops.max(), said.flops], y=[said.baseline] * 2, mode="lines", name="last value carried forward",
        line={"color": MUTED, "dash": "dot", "width": 2}, hovertemplate="baseline %{y:.4f}<extra></extra>",
    )  # fmt: skip
    bars = None
    if said.interval:
        low, high = said.interval
        bars = {
            "type": "data",
            "array": [high - said.loss],
            "arrayminus": [said.loss - low],
            "thickness": 2,
            "width": 7,
        }
    figure.add_scatter(
        x=[said.flops], y=[said.loss], mode="markers", name="predicted, held out", error_y=bars,
        marker={"symbol": "circle-open", "size": 13, "color": OUTSIDE, "line": {"width": 2.5}},
        hovertemplate=f"predicted for {said.run}<br>loss %{{y:.4f}}<extra></extra>",
    )  # fmt: skip
    if said.measured is not None:
        figure.add_scatter(
            x=[said.flops], y=[said.measured], mode="markers", name="measured, held out",
            marker={"symbol": "star", "size": 13, "color": STAR, "line": {"width": 1, "color": INK}},
            hovertemplate=f"{said.run}<br>measured loss %{{y:.4f}}<extra></extra>",
        )  # fmt: skip


def physics(found: Analysis) -> go.Figure | None:
    """Velocity error against compute, in and out of distribution, with the error of ground-truth frames as floor."""
    runs = [r for r in found.counted if any(_finite(r.get(f"velocity_{side}")) for side in ("in", "out"))]
    if not runs:
        return None
    figure = _blank("training compute C, FLOPs", "velocity error, units/s")
    heights: list[float] = []
    for side, words, colour in (("in", "in distribution", INSIDE), ("out", "out of distribution", OUTSIDE)):
        name = f"velocity_{side}"
        here = [r for r in runs if _finite(r.get(name))]
        if not here:
            continue
        x, y = np.array([r["flops"] for r in here]), np.array([r[name] for r in here])
        heights += y.tolist()
        figure.add_scatter(
            x=x, y=y, mode="markers", name=words, legendgroup=side, error_y=_bars(here, name),
            marker={"color": colour, "size": 8}, text=[str(r["run"]) for r in here],
            hovertemplate="%{text}<br>C = %{x:.2e}<br>error %{y:.4f}<extra></extra>",
        )  # fmt: skip
        best_x, best_y = envelope(x, y)
        figure.add_scatter(
            x=np.append(best_x, x.max()), y=np.append(best_y, best_y[-1]), mode="lines", legendgroup=side,
            showlegend=False, line={"color": translucent(colour, 0.6), "width": 2, "shape": "hv"}, hoverinfo="skip",
        )  # fmt: skip
        floor = floor_of(found, side)
        if floor:
            heights.append(floor)
            figure.add_scatter(
                x=[x.min(), x.max()], y=[floor] * 2, mode="lines", name=f"ground truth, {words}", legendgroup=side,
                line={"color": colour, "dash": "dash", "width": 1.5},
                hovertemplate="ground truth %{y:.4f}<extra></extra>",
            )  # fmt: skip
    return _log_axes(figure, x=[r["flops"] for r in runs], y=heights)


def floor_of(found: Analysis, side: str) -> float | None:
    """The physics error of ground-truth frames, given as a number or as {"mean": ...}."""
    value = found.study.floor.get(side)
    value = value.get("mean") if isinstance(value, dict) else value
    return float(value) if isinstance(value, (int, float)) and value > 0 else None


def curves(found: Analysis) -> go.Figure | None:
    """Training loss of every run against the compute spent, smoothed; colour is the width."""
    known = {str(run["run"]): run for run in found.study.runs}
    lines = {name: _curve(rows) for name, rows in found.study.curves.items()}
    lines = {name: line for name, line in lines.items() if len(line[0]) > 1}
    if not lines:
        return None
    figure = _blank("training compute so far, FLOPs", "training loss, smoothed")
    widths = sorted({known.get(name, {}).get("width", 0) for name in lines})
    seen = set()
    for name, (x, y) in sorted(lines.items(), key=lambda item: (known.get(item[0], {}).get("width", 0), item[0])):
        width = known.get(name, {}).get("width", 0)
        figure.add_scatter(
            x=x, y=y, mode="lines", name=f"width {width}" if width else "still running", legendgroup=str(width),
            showlegend=width not in seen, text=[name] * len(x), opacity=0.85,
            line={"color": ramp(widths.index(width), len(widths)) if width else MUTED, "width": 1.5},
            hovertemplate="%{text}<br>C = %{x:.2e}<br>loss %{y:.4f}<extra></extra>",
        )  # fmt: skip
        seen.add(width)
    return _log_axes(
        figure, x=np.concatenate([x for x, _ in lines.values()]), y=np.concatenate([y for _, y in lines.values()])
    )


def _curve(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs, loss smoothed over about 5 logged steps in log space), thinned evenly in log FLOPs."""
    pairs = [(r["flops"], r["loss"]) for r in rows if _finite(r.get("flops")) and _finite(r.get("loss"))]
    points = np.array([(x, y) for x, y in pairs if x > 0 and y > 0], np.float64).reshape(-1, 2)
    x, logs = points[:, 0], np.log(points[:, 1]) if len(points) else points[:, 1]
    for i in range(1, len(logs)):
        logs[i] = 0.8 * logs[i - 1] + 0.2 * logs[i]
    if len(x) > _DRAWN_POINTS:
        targets = np.geomspace(x[0], x[-1], _DRAWN_POINTS)
        kept = np.unique(np.append(np.searchsorted(x, targets[:-1]), len(x) - 1))
        x, logs = x[kept], logs[kept]
    return x, np.exp(logs)


def packing(found: Analysis, key: str, title: str) -> go.Figure | None:
    """A histogram of `data_pipelines.inspect --json`, a series per data set, as shares so that sets compare."""
    figure, drawn = _blank(title, "share"), 0
    for place, (name, figures) in enumerate(sorted(found.study.data.items())):
        histogram = figures.get(key, {}).get("histogram") if isinstance(figures.get(key), dict) else None
        if not histogram or not sum(histogram.get("counts", [])):
            continue
        edges, counts = np.array(histogram["edges"], float), np.array(histogram["counts"], float)
        colour = (OUTSIDE, INSIDE, RAMP[2])[place % 3]
        share = counts / counts.sum()
        figure.add_scatter(
            x=np.repeat(edges, 2), y=np.concatenate([[0], np.repeat(share, 2), [0]]), mode="lines", name=name,
            fill="tozeroy", fillcolor=translucent(colour, 0.15), line={"color": colour, "width": 2},
            hovertemplate="%{x:.4g}: %{y:.1%}<extra>" + name + "</extra>",
        )  # fmt: skip
        drawn += 1
    figure.update_layout(showlegend=drawn > 1)
    figure.update_yaxes(tickformat=".0%")
    return figure if drawn else None


FIGURES: dict[str, Callable[[Analysis], go.Figure | None]] = {
    "isoflop": isoflop,
    "compute": compute,
    "physics": physics,
    "curves": curves,
    "packing_tokens": lambda found: packing(found, "tokens_per_example", "slots of an example"),
    "packing_rows": lambda found: packing(found, "examples_per_row", "examples in a row"),
}

_HOVER = (
    "%{customdata[0]}<br>N = %{customdata[1]:.3s}, D = %{customdata[2]:.3s}<br>C = %{customdata[3]:.2e}<br>"
    "loss %{customdata[4]:.4f}<extra></extra>"
)


def _hover(grid: Any, rows: np.ndarray) -> list[list[Any]]:
    return [[grid.names[i], grid.params[i], grid.tokens[i], grid.flops[i], grid.loss[i]] for i in rows]


def _budget(found: Analysis, row: int, by_row: dict[int, Any]) -> float:
    """The budget a run is drawn under: its parabola's, else its nominal one, else its own FLOPs."""
    assert found.grid is not None
    if row in by_row:
        return by_row[row].budget
    nominal = found.grid.budgets[row]
    return float(nominal if np.isfinite(nominal) else found.grid.flops[row])


def _bars(runs: Sequence[Run], name: str) -> dict[str, Any] | None:
    low, high = f"{name}_low", f"{name}_high"
    if not all(_finite(r.get(low)) and _finite(r.get(high)) for r in runs):
        return None
    return {
        "type": "data",
        "array": [max(r[high] - r[name], 0) for r in runs],
        "arrayminus": [max(r[name] - r[low], 0) for r in runs],
        "thickness": 1,
        "width": 3,
    }


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))


def _blank(x_title: str, y_title: str) -> go.Figure:
    axis = {
        "gridcolor": GRID,
        "zeroline": False,
        "linecolor": GRID,
        "ticks": "outside",
        "tickcolor": GRID,
        "title": {"standoff": 10},
    }
    return go.Figure(
        layout={
            "template": "none",
            "font": {"family": FONT, "size": 13, "color": INK},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 62, "r": 14, "t": 10, "b": 50},
            "height": 430,
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": RAMP[0]},
            "hoverlabel": {"font": {"family": FONT, "size": 12}},
            "legend": {"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0, "font": {"size": 12}},
            "xaxis": {**axis, "title": {"text": x_title, "standoff": 8}},
            "yaxis": {**axis, "title": {"text": y_title, "standoff": 8}},
        }
    )  # fmt: skip


def _log_axes(figure: go.Figure, x: Any = None, y: Any = None) -> go.Figure:
    """Log axes where there are positive values to draw.

    Ticks stay right under zoom: automatic within a decade, at 1, 2, 5 over a few, at powers of ten over many.
    """
    for axis, values in (("xaxis", x), ("yaxis", y)):
        values = np.asarray([] if values is None else values, np.float64)
        values = values[values > 0]
        if len(values):
            decades = np.log10(values.max() / values.min())
            style: dict[str, Any] = {"type": "log", "exponentformat": "power" if values.max() > 1e9 else "SI"}
            if decades > 0.7:
                style["dtick"] = "D2" if decades < 3 else 1
            if values.max() < 1e9:  # a format makes plotly write 2 and 5 of every decade in full
                style["tickformat"] = "~s" if values.min() > 1e3 else ".3~g"
            if axis == "xaxis" and decades < 0.5:  # one budget so far: not a magnified sliver of it
                centre = float(np.log10(values).mean())
                style |= {"range": [centre - 0.7, centre + 0.7], "dtick": "D2"}
            figure.update_layout({axis: style})
    return figure
