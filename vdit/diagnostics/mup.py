"""The two checks of muP (`vdit.mup`): how far activations move at each width, and the best rate of each width."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from typing import Any

import numpy as np

from vdit.config import Config
from vdit.data import TrainingData, interface_of
from vdit.diagnostics.coordinates import coordinate_check, slopes
from vdit.errors import UserError
from vdit.parallel.mesh import make_mesh, row_reader
from vdit.render import charts, panels
from vdit.render.panels import Panel, Series


def best_rates(runs: list[dict[str, Any]], by: str = "width") -> dict[int, float]:
    """The rate at the bottom of a parabola in log rate through the losses of each width (or depth), seeds averaged.

    Raises:
      UserError: if a size has fewer than 3 rates, or its lowest loss is at the highest or lowest of them.
    """
    found = {}
    for size in sorted({int(run[by]) for run in runs}):
        rates, losses = _mean_losses(runs, by, size)
        if len(rates) < 3:
            raise UserError(f"{by} {size} has {len(rates)} learning rates; a best one needs 3")
        low = int(losses.argmin())
        if low in (0, len(rates) - 1):
            raise UserError(f"{by} {size} is best at the {'lowest' if low == 0 else 'highest'} rate tried; try more")
        near = slice(max(low - 1, 0), low + 2)
        curve, slope, _ = np.polyfit(np.log(rates[near]), losses[near], 2)
        found[size] = float(np.exp(-slope / (2 * curve)))
    return found


def _mean_losses(runs: list[dict[str, Any]], by: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """(rates, losses) of a width or depth, by rising rate."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if run[by] == size and isinstance(run.get("loss"), (int, float)) and np.isfinite(run["loss"]):
            by_rate.setdefault(float(run["learning_rate"]), []).append(run["loss"])
    rates = sorted(by_rate)
    return np.array(rates), np.array([np.mean(by_rate[rate]) for rate in rates])


def rate_figure(runs: list[dict[str, Any]], out: str) -> dict[str, Any]:
    """Draws loss against rate by width, and by depth if there are several; each at the most frequent other size.

    Returns:
      The best rates of each width and the factor between the largest and the smallest; the same of depths under
      "depth", if there are several.
    """
    drawn, found = [], {}
    for by, other in (("width", "depth"), ("depth", "width")):
        usual = collections.Counter(run.get(other) for run in runs).most_common(1)[0][0]
        alike = [run for run in runs if run.get(other) == usual]
        if by == "depth" and len({run.get("depth") for run in alike}) < 2:
            continue
        best = best_rates(alike, by)
        factor = max(best.values()) / min(best.values())
        series = [
            Series(f"{by} {size}, best {rate:.2g}", *_mean_losses(alike, by, size)) for size, rate in best.items()
        ]
        title = f"best rates within a factor {factor:.2f}"
        drawn.append(Panel("learning rate, stated at the base width", "validation loss", series, title, ordered=True))
        found[by] = {"best_rates": best, "factor": factor}
    charts.save(panels.beside(drawn), out)
    return {**found.pop("width"), **found}


def check(config: Config, data: TrainingData, widths: list[int], steps: int, out: str) -> dict[str, Any]:
    """Draws the coordinate check; gives the exponents of movement in width, with muP and without."""
    mesh = make_mesh(config.mesh)
    mean = config.diffusion.mean or data.mean()
    config = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, mean=mean))
    batches = list(itertools.islice(data.batches(0, *row_reader(mesh)), steps))
    names = ["input", *(f"block {i + 1}" for i in range(config.model.depth)), "prediction"]
    drawn, exponents = [], {}
    for title, muP in (("muP", True), ("one rate for all widths", False)):
        found = coordinate_check(config, interface_of(data.meta), batches, mesh, widths, muP)
        exponents[title] = dict(zip(names, map(float, slopes(found)), strict=True))
        series = [
            Series(
                f"{name}, width^{exponent:.2f}",
                [each.width for each in found],
                [each.moved_TK[-1, k] for each in found],
            )
            for k, (name, exponent) in enumerate(exponents[title].items())
        ]
        drawn.append(Panel("width", f"movement after {steps} steps, rms", series, title, ordered=True))
    charts.save(panels.beside(drawn), out)
    return exponents
