"""Shows what is in data sets and how their rows would be packed.

python -m data_pipelines.inspect data/film
python -m data_pipelines.inspect data/film data/physics --row_tokens=4096 --json
python -m data_pipelines.inspect data/film --split=val --sheet=film.png
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags
from etils import epath

from data_pipelines.balance import imbalance
from data_pipelines.contact_sheet import contact_sheet
from data_pipelines.index import Index
from data_pipelines.pipeline import make_plan
from data_pipelines.rows import EpochPlan
from data_pipelines.store import Dataset
from vdit.config import DataConfig, UserError, run_main
from vdit.patches import Patch

BAR = 40  # characters of the longest bar


def inspect(path: str, config: DataConfig, seed: int, devices: int) -> dict[str, Any]:
    """Figures of one data set: shapes, captions and its planned rows.

    Args:
      path: its directory.
      config: split, row sizes, windows and captions.
      seed: of the plan.
      devices: over which the rows of a step are spread; must divide config.rows_per_step.

    Raises:
      UserError: if the data set or the config is wrong.
    """
    dataset = Dataset(path)
    index, patch = dataset.index(config.split), dataset.patch
    plan = make_plan(dataset, dataclasses.replace(config, path=path), patch, seed)
    return {
        "path": path,
        "split": config.split,
        "source": dataset.meta["source"],
        "licence": dataset.meta["licence"],
        "splits": {name: dataset.size(name) for name in dataset.splits},
        "shapes": _describe_shapes(index, patch),
        "captions": {kind: describe(index.text_tokens[:, k]) for k, kind in enumerate(dataset.meta["captions"])},
        **plan_figures(plan.epoch(0), config, devices),
    }


def plan_figures(epoch: EpochPlan, config: DataConfig, devices: int) -> dict[str, Any]:
    """Rows of an epoch.

    fill is real tokens over slots; balance is the slowest device over the mean (`balance.imbalance`).
    """
    costs, tokens = epoch.costs, int(epoch.tokens.sum(dtype=np.int64))
    return {
        "examples": len(epoch.examples),
        "rows": epoch.rows,
        "steps": epoch.rows / config.rows_per_step,
        "tokens": tokens,
        "slots": epoch.rows * config.row_tokens,
        "fill": tokens / (epoch.rows * config.row_tokens),
        "balance": imbalance(costs, config.rows_per_step, devices),
        "row_cost_spread": float(costs.std() / costs.mean()),
        "examples_per_row": describe(np.diff(epoch.offsets)),
        "tokens_per_example": describe(epoch.tokens),
    }


def total(figures: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several data sets, each packed by itself, taken together."""
    summed = {name: sum(f[name] for f in figures) for name in ("examples", "rows", "steps", "tokens", "slots")}
    balance = sum(f["balance"] * f["rows"] for f in figures) / summed["rows"]
    return {**summed, "fill": summed["tokens"] / summed["slots"], "balance": balance}


def describe(values: np.ndarray, bins: int = 8) -> dict[str, Any]:
    """Least, mean, median, greatest and a histogram of numbers."""
    counts, edges = np.histogram(values, bins=min(bins, max(1, len(np.unique(values)))))
    return {
        "min": float(values.min()),
        "mean": float(values.mean()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
    }


def _describe_shapes(index: Index, patch: Patch) -> dict[str, Any]:
    sizes, counts = np.unique(np.stack([index.height, index.width], 1), axis=0, return_counts=True)
    common = np.argsort(-counts, kind="stable")[:8]
    return {
        "frames": describe(index.frames),
        "seconds": describe(index.frames / index.fps),
        "fps": describe(index.fps),
        "patches": describe(index.grid_N3(patch).prod(axis=1, dtype=np.int64)),
        "aspect": describe(index.width / index.height),
        "distinct_sizes": len(sizes),
        "sizes": [{"height": int(sizes[i, 0]), "width": int(sizes[i, 1]), "examples": int(counts[i])} for i in common],
    }


def print_report(figures: dict[str, Any]) -> None:
    """Prints the figures of one data set as tables and text histograms."""
    splits = ", ".join(f"{name} {count}" for name, count in figures["splits"].items())
    print(f"{figures['path']}: source {figures['source']}, splits {splits}\nlicence: {figures['licence']}\n")
    print(f"split {figures['split']}: {figures['examples']} examples")
    shapes = figures["shapes"]
    tables = {
        "frames": shapes["frames"],
        "seconds": shapes["seconds"],
        "frames/second": shapes["fps"],
        "width/height": shapes["aspect"],
        "patches (whole clip)": shapes["patches"],
        **{f"caption tokens, {kind}": table for kind, table in figures["captions"].items()},
        "slots (as packed)": figures["tokens_per_example"],
        "examples in a row": figures["examples_per_row"],
    }
    print(f"  {'':26}{'min':>9}{'mean':>9}{'median':>9}{'max':>9}")
    for name, table in tables.items():
        print(f"  {name:26}" + "".join(f"{table[key]:9.4g}" for key in ("min", "mean", "median", "max")))
    listed = ", ".join(f"{s['height']}x{s['width']} ({s['examples']})" for s in shapes["sizes"])
    more = "" if shapes["distinct_sizes"] <= len(shapes["sizes"]) else ", ..."
    print(f"  {shapes['distinct_sizes']} sizes (height x width, examples): {listed}{more}\n")
    for name in ("frames", "seconds"):
        _print_histogram(name, shapes[name])
    _print_histogram("slots (as packed)", figures["tokens_per_example"])


def print_plan(name: str, figures: dict[str, Any]) -> None:
    """Prints the figures of a plan in one line."""
    print(
        f"{name}: {figures['rows']} rows, {figures['steps']:.1f} steps an epoch, {figures['tokens']} tokens in "
        f"{figures['slots']} slots, fill {figures['fill']:.2%}, slowest device / mean {figures['balance']:.4f}"
        + ("" if figures["steps"] >= 1 else "; fewer rows than one step: training needs a lower data.rows_per_step")
    )


def _print_histogram(name: str, table: dict[str, Any]) -> None:
    edges, counts = table["histogram"]["edges"], table["histogram"]["counts"]
    if len(counts) < 2:
        return
    print(f"  {name}")
    for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True):
        print(f"  {low:9.4g} - {high:<9.4g}{count:>9}  {'#' * round(BAR * count / max(counts))}")
    print()


def define_flags(values: flags.FlagValues = flags.FLAGS) -> flags.FlagValues:
    """Defines the command's flags."""
    defaults = DataConfig()
    flags.DEFINE_string("split", defaults.split, "Split to inspect.", values)
    for name in ("row_tokens", "row_examples", "row_text", "rows_per_step", "max_frames", "pack_window"):
        flags.DEFINE_integer(name, getattr(defaults, name), f"As data.{name} of a training config.", flag_values=values)
    flags.DEFINE_list("captions", [], "Caption kinds to draw from; none = all.", values)
    flags.DEFINE_integer("devices", 0, "Devices that share the rows of a step; 0 = one row each.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the plan.", flag_values=values)
    flags.DEFINE_bool("json", False, "Print the figures as JSON.", values)
    flags.DEFINE_string("sheet", "", "PNG to draw a contact sheet of the (first) data set to.", values)
    return values


def main(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Inspects the data sets named in argv[1:]."""
    paths = [path for argument in argv[1:] for path in argument.split(",") if path]
    if not paths:
        raise UserError("name a data set directory: python -m data_pipelines.inspect DIR [DIR ...]")
    names = [field.name for field in dataclasses.fields(DataConfig) if field.name in values and field.name != "path"]
    settings = {name: getattr(values, name) for name in names}
    config = DataConfig(**{**settings, "captions": tuple(values.captions)})
    devices = values.devices or config.rows_per_step
    if devices < 1 or config.rows_per_step % devices:
        raise UserError(f"--devices={values.devices} must divide --rows_per_step={config.rows_per_step}")
    figures = [inspect(path, config, values.seed, devices) for path in paths]
    together = total(figures)
    if values.json:
        print(json.dumps({**together, "datasets": figures} if len(paths) > 1 else figures[0]))
    else:
        for each in figures:
            print_report(each)
        for each in figures:
            print_plan(f"plan of {each['path']}", each)
        if len(paths) > 1:
            print_plan("together", together)
    if values.sheet:
        _save_sheet(Dataset(paths[0]), config.split, values.sheet)


def _save_sheet(dataset: Dataset, split: str, path: str) -> None:
    try:
        with epath.Path(path).open("wb") as file:
            contact_sheet(dataset, split).save(file, "PNG")
    except OSError as error:
        raise UserError(f"--sheet={path} cannot be written ({error}); name a file in a folder that exists") from error


if __name__ == "__main__":
    define_flags()
    run_main(main)
