"""Does the learning rate found at a small width hold at a large one? The two checks of muP, as figures.

    python -m vdit.diagnostics.mup --config=configs/physics.py --out=docs/figures/mup [--widths=64,128,256,512,1024]
    python -m vdit.diagnostics.mup --runs=sweeps/mup/runs.csv --out=docs/figures/mup-rate

The first trains a few steps at every width, with muP and without, and draws how far activations move (flat under muP).
The second draws the loss of finished runs against their rate, for each width, and the best rate of each.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
from absl import flags

from vdit import config_flag
from vdit.command import no_arguments, run_main
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.render import charts, panels
from vdit.render.panels import Panel, Series
from vdit.scaling.runs import read_csv


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


def check(config: Config, widths: list[int], steps: int, out: str) -> dict[str, Any]:
    """Draws the coordinate check; gives the exponents of movement in width, with muP and without."""
    from data_pipelines.reading import pipeline
    from data_pipelines.reading.mixture import open_data
    from vdit.diagnostics.coordinates import coordinate_check, slopes
    from vdit.parallel.mesh import make_mesh, row_reader
    from vdit.training.loop import interface_of

    dataset = open_data(config.data)
    mean = config.diffusion.mean or pipeline.channel_mean(dataset, config.data.split)
    config = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, mean=mean))
    mesh = make_mesh(config.mesh)
    rows = pipeline.rows(dataset, config.data, dataset.patch, config.seed, 0, *row_reader(mesh))
    batches = [next(rows) for _ in range(steps)]
    rows.close()
    names = ["input", *(f"block {i + 1}" for i in range(config.model.depth)), "prediction"]
    drawn, told = [], {}
    for title, muP in (("muP", True), ("one rate for all widths", False)):
        found = coordinate_check(config, interface_of(dataset.meta), batches, mesh, widths, muP)
        told[title] = dict(zip(names, map(float, slopes(found)), strict=True))
        series = [
            Series(
                f"{name}, width^{exponent:.2f}",
                [each.width for each in found],
                [each.moved_TK[-1, k] for each in found],
            )
            for k, (name, exponent) in enumerate(told[title].items())
        ]
        drawn.append(Panel("width", f"movement after {steps} steps, rms", series, title, ordered=True))
    charts.save(panels.beside(drawn), out)
    return told


def main(argv: list[str]) -> None:
    no_arguments(argv)
    values = flags.FLAGS
    if values.runs:
        found = rate_figure([run for run in read_csv(values.runs) if "learning_rate" in run], values.out)
    else:
        from vdit.parallel.runtime import cpu_devices_for, initialise

        config = build(values.config.to_dict(), Config)
        initialise(cpu_devices_for(config))
        found = check(config, [int(width) for width in values.widths], values.steps, values.out)
    print(json.dumps(found, indent=1))
    print(f"{values.out}.svg, {values.out}.png")


if __name__ == "__main__":
    config_flag.define("config", "The experiment whose model and data are used.", "configs/physics.py")
    flags.DEFINE_string("runs", "", "runs.csv of runs of several widths and learning rates: draw these instead")
    flags.DEFINE_list("widths", ["64", "128", "256", "512", "1024"], "widths to train, multiples of model.head_width")
    flags.DEFINE_integer("steps", 4, "training steps", lower_bound=1)
    flags.DEFINE_string("out", "mup", "figure to write, without .svg and .png")
    run_main(main)
