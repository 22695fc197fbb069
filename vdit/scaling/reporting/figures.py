"""The figures of a study, as charts that a report, a notebook and a file share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from vdit.render import charts
from vdit.render.charts import BLUE, GREY, NAMED, ORANGE, VIOLET, Named
from vdit.scaling.laws.checks.extrapolate import judge
from vdit.scaling.laws.law import LEVEL, central
from vdit.scaling.reporting.analysis import Analysis, envelope
from vdit.scaling.reporting.measures import Measure, is_number
from vdit.scaling.runs import table

COMPUTE = "training compute C, FLOPs"
LAW, INTERVAL, RUNS, MINIMA = "law, at the best size", f"its {LEVEL:.0%} interval", "runs of the grid", "minima"
CARRIED, PREDICTED, MEASURED = "last value carried forward", "predicted, held out", "measured, held out"
HEIGHT = 330
_DRAWN_POINTS = 240  # of a training curve


def isoflop(found: Analysis) -> alt.LayerChart | None:
    """Loss against size at each budget, with parabolas and their minima; open minima lie outside the sizes tried."""
    if found.grid is None or found.isoflop is None:
        return None
    grid, by_row = found.grid, {int(row): p for p in found.isoflop.parabolas for row in p.rows}
    budgets = [_budget(found, i, by_row) for i in range(len(grid))]
    points = [{**row, "budget": budget} for row, budget in zip(grid_rows(found), budgets, strict=True)]
    curves: list[dict[str, Any]] = []
    inside: list[dict[str, Any]] = []
    outside: list[dict[str, Any]] = []
    for parabola in found.isoflop.parabolas:
        sizes = grid.params[parabola.rows]
        for n in np.geomspace(sizes.min() / 1.15, sizes.max() * 1.15, 60):
            curves.append({"params": float(n), "loss": float(parabola(n)), "budget": parabola.budget})
        if np.isfinite(parabola.params) and sizes.min() / 3 < parabola.params < sizes.max() * 3:
            place = {"params": parabola.params, "loss": parabola.loss, "budget": parabola.budget}
            (outside if parabola.edge else inside).append({**place, "what": parabola.edge or "minimum"})
    every = [*points, *curves, *inside, *outside]
    x = charts.axis("x", "params", params_title(found), [row["params"] for row in every])
    y = charts.axis("y", "loss", loss_title(found), [row["loss"] for row in [*points, *inside, *outside]], log=False)
    colour = charts.ordered("budget", budgets, f"{charts.power_label()} + ' FLOPs'")
    parts = [
        chart(curves, x, y, color=colour, detail="budget:N").mark_line(strokeWidth=1.8, opacity=0.75, clip=True),
        chart(points, x, y, color=colour, tooltip=_TOOLTIP).mark_point(filled=True, opacity=1, size=50),
    ]
    tooltip = ["what:N", alt.Tooltip("params:Q", format=".3~s", title="N"), _number("loss")]
    for rows, shape, style in ((inside, charts.DIAMOND, "outlined"), (outside, charts.OPEN_DIAMOND, "point")):
        marks = chart(rows, x, y, color=colour, tooltip=tooltip)
        parts.append(marks.mark_point(filled=True, opacity=1, size=150, shape=shape, style=style))
    return layers(*parts)


def compute(found: Analysis) -> alt.LayerChart | None:
    """Loss against compute: the runs, what the law says a budget buys, and the held-out run against its prediction."""
    if found.grid is None:
        return None
    grid, said = found.grid, found.prediction
    rows = [{**row, "series": RUNS} for row in grid_rows(found)]
    minima = [p for p in (found.isoflop.parabolas if found.isoflop else ()) if not p.edge]
    rows += [{"flops": p.budget, "loss": p.loss, "series": MINIMA} for p in minima]
    held, baseline = _held_out(found)
    costs = [*grid.flops, *(row["flops"] for row in held)]
    law = _law_rows(found, np.geomspace(min(costs) / 1.3, max(costs) * 1.6, 60))
    heights = [row[end] for row in [*rows, *held, *baseline] for end in ("loss", "low", "high") if end in row]
    x = charts.axis("x", "flops", COMPUTE, [*costs, *(row["flops"] for row in law)], powers=True)
    y = charts.axis("y", "loss", loss_title(found), heights)
    things = [
        *([Named(LAW, BLUE, charts.LINE)] if law else []),
        *([Named(INTERVAL, BLUE + "40", charts.BAND)] if law and "low" in law[0] else []),
        Named(RUNS, GREY),
        *([Named(MINIMA, VIOLET, charts.DIAMOND)] if minima else []),
        *([Named(CARRIED, GREY, charts.DASHES), Named(PREDICTED, ORANGE, charts.RING)] if said else []),
        *([Named(MEASURED, charts.AMBER, charts.STAR)] if len(held) > 1 else []),
    ]
    colour, shape = charts.named(things)
    bands = [{**row, "series": INTERVAL} for row in law if "low" in row]
    parts = [
        chart(bands, x, alt.Y("low:Q"), y2="high:Q", color=colour).mark_area(clip=True),
        chart(law, x, y, color=colour).mark_line(strokeWidth=2.4, clip=True),
        chart(baseline, x, y, color=colour).mark_line(strokeDash=[2, 3], strokeWidth=2),
        chart(rows, x, y, color=colour, shape=shape, tooltip=_TOOLTIP).mark_point(filled=True, opacity=0.9, size=46),
        chart([row for row in held if "low" in row], x, alt.Y("low:Q"), y2="high:Q", color=colour).mark_rule(
            strokeWidth=2
        ),
        chart(held, x, y, color=colour, shape=shape, tooltip=["run:N", "series:N", _number("loss")]).mark_point(
            filled=True, opacity=1, size=150
        ),
    ]
    return layers(*parts)


def loss_title(found: Analysis) -> str:
    """Title of an axis of losses; those of our own runs are of validation."""
    return "validation loss" if any("validation_loss" in run for run in found.study.runs) else "loss"


def params_title(found: Analysis) -> str:
    """Title of an axis of N."""
    own = any("params_total" in run for run in found.study.runs)
    return "parameters N, without embeddings" if own else "parameters N"


def _law_rows(found: Analysis, costs: np.ndarray) -> list[dict[str, Any]]:
    """L_opt(C) with its bootstrap interval."""
    if found.fit is None:
        return []
    rows = []
    for cost in costs:
        row = {"flops": float(cost), "loss": float(found.fit.law.optimal_loss(cost, found.fit.cost)), "series": LAW}
        span = central(found.fit.resamples.optimal_loss(cost, found.fit.cost))
        rows.append(row | ({"low": float(span[0]), "high": float(span[1])} if span else {}))
    return rows


def _held_out(found: Analysis) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(prediction with its interval and measurement, the line of the last value carried forward)."""
    said, grid = found.prediction, found.grid
    if said is None or grid is None:
        return [], []
    predicted: dict[str, Any] = {"run": said.run, "flops": said.flops, "loss": said.loss, "series": PREDICTED}
    if said.interval:
        predicted |= {"low": said.interval[0], "high": said.interval[1]}
    rows = [predicted]
    others = [run for run in found.study.of_kind("heldout") if run["run"] != said.run]
    if others and found.fit is not None:
        for row in judge(found.fit, grid, table(others)):
            span = dict(zip(("low", "high"), row["interval"] or (), strict=False))
            rows.append(
                {"run": row["run"], "flops": row["flops"], "loss": row["predicted"], "series": PREDICTED, **span}
            )
    for run in found.study.of_kind("heldout"):
        rows.append({"run": str(run["run"]), "flops": run["flops"], "loss": run["loss"], "series": MEASURED})
    ends = float(grid.flops.max()), said.flops
    return rows, [{"flops": flops, "loss": said.baseline, "series": CARRIED} for flops in ends]


def measured(found: Analysis, measure: Measure) -> alt.LayerChart | None:
    """A measure against compute on each of its splits, the best so far, and what it says of ground truth."""
    points: list[dict[str, Any]] = []
    best: list[dict[str, Any]] = []
    floors: list[dict[str, Any]] = []
    things: list[Named] = []
    runs = found.measured
    for (column, side), shade in zip(measure.columns.items(), NAMED, strict=False):
        here = [run for run in runs if is_number(run.get(column))]
        if not here:
            continue
        name = side or measure.title
        things.append(Named(name, shade))
        for run in here:
            row = {"run": str(run["run"]), "flops": run["flops"], "value": run[column], "series": name}
            ends = {end: run.get(f"{column}_{end}") for end in ("low", "high")}
            points.append(row | (ends if all(map(is_number, ends.values())) else {}))
        x, y = np.array([run["flops"] for run in here]), np.array([run[column] for run in here])
        if measure.better:
            sign = -1 if measure.better == "higher" else 1
            low_x, low_y = envelope(x, sign * y)
            steps = zip([*low_x, x.max()], [*(sign * low_y), sign * low_y[-1]], strict=True)
            best += [{"flops": float(a), "value": float(b), "series": name} for a, b in steps]
        if (floor := floor_of(found, column)) is not None:
            truth = f"ground truth, {name}" if side else "ground truth"
            floors.append({"value": floor, "series": truth})
            things.append(Named(truth, shade, charts.DASHES))
    if not points:
        return None
    unit = f", {measure.unit}" if measure.unit else ""
    heights = [row[end] for row in [*points, *floors] for end in ("value", "low", "high") if end in row]
    if min(row["value"] for row in [*points, *floors]) > 0:  # an end below 0 does not take the axis its logarithm
        heights = [height for height in heights if height > 0]
    x = charts.axis("x", "flops", COMPUTE, [row["flops"] for row in points], powers=True)
    y = charts.axis("y", "value", f"{measure.title}{unit}", heights)
    colour, shape = charts.named(things)
    bars = [row for row in points if "low" in row]
    parts = [
        chart(bars, x, alt.Y("low:Q"), y2="high:Q", color=colour).mark_rule(opacity=0.55, clip=True),
        chart(best, x, y, color=colour).mark_line(interpolate="step-after", opacity=0.6),
        chart(floors, None, y, color=colour).mark_rule(strokeDash=[5, 4], strokeWidth=1.4),
        chart(
            points, x, y, color=colour, shape=shape, tooltip=["run:N", "series:N", _cost("flops"), _number("value")]
        ).mark_point(filled=True, opacity=1, size=50),
    ]  # fmt: skip
    return layers(*parts)


def floor_of(found: Analysis, column: str) -> float | None:
    """What a measure says of ground truth, given in floor.json as a number or as {"mean": ...}."""
    value = found.study.floor.get(column)
    value = value.get("mean") if isinstance(value, dict) else value
    return float(value) if is_number(value) and value > 0 else None


def curves(found: Analysis) -> alt.LayerChart | None:
    """Training loss of every run against the compute spent, smoothed; colour is the size of the model."""
    known = {str(run["run"]): run for run in found.study.runs}
    curves = {name: line for name, rows in found.study.curves.items() if len((line := _curve(rows))[0]) > 1}
    if not curves:
        return None
    sized: list[dict[str, Any]] = []
    running: list[dict[str, Any]] = []
    for name, (x, y) in curves.items():
        width = known.get(name, {}).get("width")
        rows = [{"run": name, "flops": float(a), "loss": float(b), "width": width} for a, b in zip(x, y, strict=True)]
        (sized if is_number(width) and width > 0 else running).extend(rows)
    rows = [*sized, *running]
    x = charts.axis("x", "flops", "training compute so far, FLOPs", [row["flops"] for row in rows], powers=True)
    y = charts.axis("y", "loss", "training loss, smoothed", [row["loss"] for row in rows])
    tooltip = ["run:N", _cost("flops"), _number("loss")]
    parts = [chart(running, x, y, detail="run:N", tooltip=tooltip).mark_line(strokeWidth=1.5, color=GREY)]
    if sized:
        colour = charts.ordered("width", [row["width"] for row in sized], "'width ' + datum.label")
        lines = chart(sized, x, y, color=colour, detail="run:N", tooltip=tooltip)
        parts.append(lines.mark_line(strokeWidth=1.5, opacity=0.85))
    return layers(*parts)


def _curve(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(FLOPs, loss smoothed over about 5 logged steps in log space), thinned evenly in log FLOPs."""
    pairs = [(r["flops"], r["loss"]) for r in rows if is_number(r.get("flops")) and is_number(r.get("loss"))]
    points = np.array([(x, y) for x, y in pairs if x > 0 and y > 0], np.float64).reshape(-1, 2)
    x, logs = points[:, 0], np.log(points[:, 1]) if len(points) else points[:, 1]
    for i in range(1, len(logs)):
        logs[i] = 0.8 * logs[i - 1] + 0.2 * logs[i]
    if len(x) > _DRAWN_POINTS:
        targets = np.geomspace(x[0], x[-1], _DRAWN_POINTS)
        kept = np.unique(np.append(np.searchsorted(x, targets[:-1]), len(x) - 1))
        x, logs = x[kept], logs[kept]
    return x, np.exp(logs)


def _histogram(found: Analysis, key: str, title: str) -> alt.LayerChart | None:
    """A histogram of `data_pipelines.inspect --json`, a series per data set, as shares so that sets compare."""
    bars, names = [], []
    for name, figures in sorted(found.study.data.items()):
        edges, counts = _histogram_of(figures.get(key))
        if not sum(counts):
            continue
        names.append(name)
        for low, high, count in zip(edges, edges[1:], counts, strict=False):
            bars.append({"low": low, "high": high, "share": count / sum(counts), "series": name})
    if not names:
        return None
    colour, _ = charts.named([Named(name, charts.NAMED[i % len(charts.NAMED)]) for i, name in enumerate(names)])
    x = alt.X("low:Q", title=title, scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("share:Q", title="share of each data set", axis=alt.Axis(format=".0%"))
    tooltip = [
        "series:N",
        alt.Tooltip("low:Q", title="from"),
        alt.Tooltip("high:Q", title="to"),
        alt.Tooltip("share:Q", format=".1%"),
    ]
    drawn = chart(bars, x, y, x2="high:Q", y2=alt.datum(0), color=colour, tooltip=tooltip)
    return layers(drawn.mark_rect(opacity=0.45))


def _histogram_of(said: Any) -> tuple[list[float], list[float]]:
    """(edges, counts) of {"histogram": ...}; empty for anything else."""
    found = said.get("histogram") if isinstance(said, dict) else None
    edges, counts = (found.get("edges"), found.get("counts")) if isinstance(found, dict) else (None, None)
    if not isinstance(edges, list) or not isinstance(counts, list) or not all(map(is_number, edges + counts)):
        return [], []
    return edges, counts


def packing_tokens(found: Analysis) -> alt.LayerChart | None:
    """Sizes of examples."""
    return _histogram(found, "tokens_per_example", "slots of an example")


def packing_rows(found: Analysis) -> alt.LayerChart | None:
    """Examples in a packed row."""
    return _histogram(found, "examples_per_row", "examples in a row")


def _number(field: str, title: str | None = None) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=".4~g", title=title or field)


def _cost(field: str) -> alt.Tooltip:
    return alt.Tooltip(f"{field}:Q", format=".2e", title="C")


_TOOLTIP = [
    "run:N",
    alt.Tooltip("params:Q", format=".3~s", title="N"),
    alt.Tooltip("tokens:Q", format=".3~s", title="D"),
    _cost("flops"),
    _number("loss"),
]


def chart(rows: Sequence[Mapping[str, Any]], x: Any, y: Any, **others: Any) -> alt.Chart:
    """Rows along x and y; across the whole width without x."""
    places = {"x": x, "y": y} if x is not None else {"y": y}
    return alt.Chart(alt.Data(values=list(rows))).encode(**places, **others)


def layers(*parts: alt.Chart) -> alt.LayerChart:
    """Layers as wide as where they stand; axes move by dragging and, with the shift key, zoom by the wheel."""
    zoom = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]")
    drawn: Any = alt.layer(*parts, width="container", height=HEIGHT).add_params(zoom)
    return drawn


def grid_rows(found: Analysis) -> list[dict[str, Any]]:
    """The runs of the grid as rows of a chart."""
    grid = found.grid
    assert grid is not None
    columns = zip(grid.names, grid.params, grid.tokens, grid.flops, grid.loss, strict=True)
    return [
        {"run": run, "params": float(n), "tokens": float(d), "flops": float(c), "loss": float(loss)}
        for run, n, d, c, loss in columns
    ]


def _budget(found: Analysis, row: int, by_row: Mapping[int, Any]) -> float:
    """The budget a run is drawn under: its parabola's, else its nominal one, else its own FLOPs."""
    assert found.grid is not None
    if row in by_row:
        return float(by_row[row].budget)
    nominal = found.grid.budgets[row]
    return float(nominal if np.isfinite(nominal) else found.grid.flops[row])
