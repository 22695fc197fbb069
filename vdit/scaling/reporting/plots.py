"""Plain figures for pages of documentation, as SVG and PNG that are the same whenever they are drawn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vdit.errors import UserError
from vdit.scaling.reporting.figures import GRID_HEX, INK, MUTED, RAMP

WIDTH, HEIGHT = 4.6, 3.5  # inches of a panel


@dataclasses.dataclass(frozen=True)
class Series:
    """One line of a panel.

    Attributes:
      name: in the legend; empty = not there.
      x, y: points; nan is left out.
      low, high: ends of their intervals; empty = none.
      colour: index into the ramp of ordered things, or a colour.
      line: whether points are joined; points: whether they are drawn.
      dashed: of the line.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray = ()
    high: Sequence[float] | np.ndarray = ()
    colour: int | str = 0
    line: bool = True
    points: bool = True
    dashed: bool = False


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
    """

    x_title: str
    y_title: str
    series: Sequence[Series]
    title: str = ""
    log_x: bool = True
    log_y: bool = True
    level: tuple[str, float] | None = None
    labels: Sequence[str] = ()


def draw(path: str | Path, panels: Sequence[Panel]) -> list[Path]:
    """Writes PATH.svg and PATH.png, panels side by side; gives both paths.

    Raises:
      UserError: without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("figures need matplotlib: pip install 'vdit[figures]'") from error
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    style: dict[Any, Any] = {
        "svg.hashsalt": "vdit",
        "svg.fonttype": "path",
        "font.size": 9,
        "axes.edgecolor": MUTED,
        "text.color": INK,
    }
    style |= {"axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH * len(panels), HEIGHT), layout="constrained")
        for panel, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
            _panel(axes, panel)
        files = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
        figure.savefig(files[0], metadata={"Date": None, "Creator": None})
        figure.savefig(files[1], dpi=150, metadata={"Software": None})
    return files


def _log_ticks(axis: Any) -> None:
    """Ticks at 1, 2, 5 of every decade, fewer over several, and evenly spaced ones over a fraction of one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    if decades < 0.6:
        axis.set_major_locator(MaxNLocator(5))
    else:
        places = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 5.0)
        axis.set_major_locator(LogLocator(subs=places))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axis.set_minor_formatter(NullFormatter())


def _panel(axes: Any, panel: Panel) -> None:
    for each in panel.series:
        colour = RAMP[each.colour % len(RAMP)] if isinstance(each.colour, int) else each.colour
        x, y = np.asarray(each.x, float), np.asarray(each.y, float)
        if len(each.low):
            bars = np.maximum([y - np.asarray(each.low, float), np.asarray(each.high, float) - y], 0)
            axes.errorbar(x, y, bars, fmt="none", ecolor=colour, elinewidth=1, capsize=2, alpha=0.7)
        style = ("--" if each.dashed else "-") if each.line else "none"
        marker = "o" if each.points else "none"
        axes.plot(x, y, ls=style, marker=marker, ms=4, lw=1.5, color=colour, label=each.name or None)
    if panel.level:
        axes.axhline(panel.level[1], ls=":", lw=1.2, color=MUTED, label=panel.level[0])
    axes.set(xlabel=panel.x_title, ylabel=panel.y_title, title=panel.title)
    if panel.labels:
        axes.set_xticks(range(len(panel.labels)), ["\n".join(label.rsplit(" ", 1)) for label in panel.labels])
        axes.set_xlim(-0.5, len(panel.labels) - 0.5)
    elif panel.log_x:
        axes.set_xscale("log")
    if panel.log_y:
        axes.set_yscale("log")
    for log, axis in ((panel.log_x and not panel.labels, axes.xaxis), (panel.log_y, axes.yaxis)):
        if log:
            _log_ticks(axis)
    axes.grid(color=GRID_HEX, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if any(each.name for each in panel.series) or panel.level:
        axes.legend(frameon=False, fontsize=8)
