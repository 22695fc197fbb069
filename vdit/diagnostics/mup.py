"""The two checks of muP (`vdit.mup`): how far activations move at each width, and the best rate of each width."""

from __future__ import annotations

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


def best_rates(runs: list[dict[str, Any]]) -> dict[int, float]:
    """The rate at the bottom of a parabola in log rate through the losses of each width, seeds averaged.

    Raises:
      UserError: if a width has fewer than 3 rates, or its lowest loss is at the highest or lowest of them.
    """
    found = {}
    for width in sorted({int(run["width"]) for run in runs}):
        rates, losses = _mean_losses(runs, width)
        if len(rates) < 3:
            raise UserError(f"width {width} has {len(rates)} learning rates; a best one needs 3")
        low = int(losses.argmin())
        if low in (0, len(rates) - 1):
            raise UserError(f"width {width} is best at the {'lowest' if low == 0 else 'highest'} rate tried; try more")
        near = slice(max(low - 1, 0), low + 2)
        curve, slope, _ = np.polyfit(np.log(rates[near]), losses[near], 2)
        found[width] = float(np.exp(-slope / (2 * curve)))
    return found


def _mean_losses(runs: list[dict[str, Any]], width: int) -> tuple[np.ndarray, np.ndarray]:
    """(rates, losses) of a width, by rising rate."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        if run["width"] == width and isinstance(run.get("loss"), (int, float)) and np.isfinite(run["loss"]):
            by_rate.setdefault(float(run["learning_rate"]), []).append(run["loss"])
    rates = sorted(by_rate)
    return np.array(rates), np.array([np.mean(by_rate[rate]) for rate in rates])


def rate_figure(runs: list[dict[str, Any]], out: str) -> dict[str, Any]:
    """Draws loss against rate by width; gives the best rates and the factor between the largest and the smallest."""
    best = best_rates(runs)
    factor = max(best.values()) / min(best.values())
    series = [Series(f"width {width}, best {rate:.2g}", *_mean_losses(runs, width)) for width, rate in best.items()]
    title = f"best rates within a factor {factor:.2f}"
    panel = Panel("learning rate, stated at the base width", "validation loss", series, title, ordered=True)
    charts.save(panels.beside([panel]), out)
    return {"best_rates": best, "factor": factor}


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
