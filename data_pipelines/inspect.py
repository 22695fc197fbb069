"""Shows what is in data sets, what their builds changed, how their rows would be packed, and how far a budget goes.

python -m data_pipelines.inspect data/film
python -m data_pipelines.inspect data/film data/physics --weights=1,0.5 --row_tokens=4096 --json
python -m data_pipelines.inspect data/film --split=val --sheet=film.png
python -m data_pipelines.inspect data/film --filter="motion > 0.1 and bars == 0" --sheet=film.png --sheet_by=motion
python -m data_pipelines.inspect data/film --filter="motion > 0.1" --page=film.html
python -m data_pipelines.inspect --config=configs/physics.py --flops=1e15

Several data sets are packed as the mixture that training makes of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from absl import flags

from vdit.command import config_flag
from vdit.command.run import run_main
from vdit.config import Config, DataConfig
from vdit.config_dict import build
from vdit.errors import UserError

if TYPE_CHECKING:  # help and mistakes in flags do not wait for these
    from data_pipelines.packing.budget import StepSums
    from data_pipelines.reading.mixture import Mixture
    from data_pipelines.reading.store import Dataset

COUNTS = ("row_tokens", "row_examples", "row_text", "rows_per_step", "max_frames", "pack_window")


def define_flags(values: flags.FlagValues = flags.FLAGS) -> flags.FlagValues:
    """Defines the command's flags."""
    defaults = DataConfig()
    config_flag.define(
        "config", "Training config, whose data, model and seed are taken.", "configs/physics.py", values=values
    )
    flags.DEFINE_string("split", defaults.split, "Split to inspect.", values)
    for name in COUNTS:
        flags.DEFINE_integer(name, getattr(defaults, name), f"As data.{name} of a training config.", flag_values=values)
    flags.DEFINE_list("captions", [], "Caption kinds to draw from; none = all.", values)
    flags.DEFINE_list("weights", [], "How often an epoch holds each example, by data set; none = once.", values)
    flags.DEFINE_integer("devices", 0, "Devices that share the rows of a step; 0 = one row each.", flag_values=values)
    flags.DEFINE_integer("seed", 0, "Seed of the plan.", flag_values=values)
    flags.DEFINE_float("steps", None, "Budget in steps: say how many epochs it is.", 1, flag_values=values)
    flags.DEFINE_float("tokens", None, "Budget in tokens (patches, captions apart).", 1, flag_values=values)
    flags.DEFINE_float("flops", None, "Budget in training FLOPs of the model in --config.", 1, flag_values=values)
    flags.DEFINE_bool("json", False, "Print the figures as JSON.", values)
    about = "As data.filter of a training config: says how much it keeps; sheets show what it keeps."
    flags.DEFINE_string("filter", "", about, values)
    flags.DEFINE_string("strata", "", "As data.strata of a training config.", values)
    flags.DEFINE_string("sheet", "", "PNG (or .webp) to draw a contact sheet of all named data sets to.", values)
    flags.DEFINE_string("histograms", "", "PNG to draw a histogram of every column to.", values)
    flags.DEFINE_string("pairs", "", "PNG (or .webp) to draw pairs of near duplicates to, side by side.", values)
    flags.DEFINE_string("sheet_by", "", "Column, such as motion, whose quantiles the contact sheet shows.", values)
    about = "HTML page with histograms, contact sheets by quantile of every column, near duplicates and the filter."
    flags.DEFINE_string("page", "", about, values)
    return values


def main(argv: list[str], values: flags.FlagValues = flags.FLAGS) -> None:
    """Inspects the data sets named in argv[1:], or else by the config."""
    config = _config(argv, values)
    data_config = config.data
    if not data_config.paths:
        raise UserError("name a data set directory: python -m data_pipelines.inspect DIR [DIR ...]")
    devices = values.devices or data_config.rows_per_step
    if devices < 1 or data_config.rows_per_step % devices:
        raise UserError(f"--devices={values.devices} must divide data.rows_per_step={data_config.rows_per_step}")
    from data_pipelines.inspecting.inspect_report import print_report
    from data_pipelines.inspecting.inspection import inspect
    from data_pipelines.reading.mixture import open_data

    data = open_data(data_config)
    budget = {name: values[name].value for name in ("steps", "tokens", "flops") if values[name].present}
    flops_of = _flops_of(config, data) if values.config else None
    figures = inspect(data, data_config, config.seed, devices, budget, flops_of)
    if values.json:
        print(json.dumps(_finite(figures)))
    else:
        print_report(figures)
    if values.sheet or values.histograms or values.pairs or values.page:
        _draw(data, data_config, values)


def _draw(data: Dataset | Mixture, config: DataConfig, values: flags.FlagValues) -> None:
    """Writes the pictures and the page that are asked for."""
    from data_pipelines.inspecting.contact_sheet import contact_sheet, encoded, pairs_sheet
    from data_pipelines.inspecting.histograms import histograms
    from data_pipelines.inspecting.page import page
    from data_pipelines.packing.selection import keeps
    from vdit.render import charts

    index = data.index(config.split)
    keeps_N = keeps(index, config) if config.filter else None
    if path := values.histograms:
        _save("histograms", charts.png(histograms(index, keeps_N)), path)
    if path := values.sheet:
        sheet = contact_sheet(data, config.split, by=values.sheet_by, keeps_N=keeps_N)
        _save("sheet", encoded(sheet, _kind(path)), path)
    if path := values.pairs:
        _save("pairs", encoded(pairs_sheet(data), _kind(path)), path)
    if path := values.page:
        _save("page", page(data, config.split, config.filter, keeps_N).encode(), path)


def _config(argv: list[str], values: flags.FlagValues) -> Config:
    """--config, with what other flags and arguments say put into it."""
    config = build(values.config.to_dict(), Config) if values.config else Config()
    changes: dict[str, Any] = {
        name: values[name].value for name in ("split", "filter", "strata", *COUNTS) if values[name].present
    }
    if paths := [path for argument in argv[1:] for path in argument.split(",") if path]:
        changes["path"] = ",".join(paths)
    if values["captions"].present:
        changes["captions"] = tuple(values.captions)
    if values["weights"].present:
        try:
            changes["weights"] = tuple(map(float, values.weights))
        except ValueError as error:
            raise UserError(f"--weights={','.join(values.weights)} should be numbers, one for each data set") from error
    seed = values.seed if values["seed"].present else config.seed
    return dataclasses.replace(config, seed=seed, data=dataclasses.replace(config.data, **changes))


def _flops_of(config: Config, data: Dataset | Mixture) -> Callable[[StepSums], float]:
    """Training FLOPs of a step of the config's model."""
    from vdit import flops

    model, meta = config.model, data.meta
    patch = math.prod(meta["patch"]) * meta["channels"]
    shape = flops.shape_of(model, patch, meta["text_encoder"]["width"])
    return lambda step: float(flops.training_flops_of_sums(shape, *dataclasses.astuple(step)))


def _finite(value: Any) -> Any:
    """The value with None for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _kind(path: str) -> str:
    return "WEBP" if path.endswith(".webp") else "PNG"


def _save(flag: str, content: bytes, path: str) -> None:
    from etils import epath

    try:
        epath.Path(path).write_bytes(content)
    except OSError as error:
        raise UserError(f"--{flag}={path} cannot be written ({error}); name a file in a folder that exists") from error


if __name__ == "__main__":
    define_flags()
    run_main(main)
