"""Parts of single experiments' pages: a prediction made beforehand, the worth of repeats, crops, how full rows are."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.media.filters import SUBJECT_MEASURES
from data_pipelines.reading import pipeline
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.film import CAPTIONS_FILE
from launch.experiments import spec
from launch.sweeps.expand import merged
from vdit.config import Config
from vdit.config_dict import build
from vdit.errors import UserError
from vdit.evaluation.balls.framing import ball_boxes_kept, box_kept
from vdit.io.files import read_json
from vdit.render.pages import Block, Points, Table, Text, code
from vdit.scaling.laws.extensions.repetition import fit_repetition
from vdit.scaling.laws.seeds import mean

FILM_ASPECT = 1280 / 720
Rows = Sequence[Mapping[str, Any]]
Data = Mapping[str, Path]


def prediction(name: str, rows: Rows, data: Data, docs: Path) -> list[Block]:
    """Predicted and measured loss of the held-out arm, beside the last value carried forward."""
    del data
    said = read_json(docs / f"{name}-prediction.json")
    found = mean([row["loss"] for row in rows if row["kind"] == "heldout"])
    low, high = said["interval"] or (float("nan"), float("nan"))
    covered = "holds" if low <= found.value <= high else "does **not** hold"
    lines = [
        [f"{title}", f"{said[key]:.4g}", f"{said[key] / found.value - 1:+.2%}"]
        for title, key in (
            (f"law, {said['level']:.0%} interval {low:.4g} to {high:.4g}", "predicted_loss"),
            ("last value carried forward", "baseline_loss"),
        )
    ]
    span = f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"
    return [
        Text(
            f"Written at {said['written']}, before the held-out runs ({code(f'{name}-prediction.json')}), by the law of"
            f" {said['rows']} runs of the grid:"
        ),
        Table(["", "loss", "error"], [*lines, [f"measured, mean of {found.count} seeds", span, ""]]),
        Text(f"The law's interval {covered} the measurement."),
        *_predicted_metrics(said.get("metrics", {}), rows),
    ]


def _predicted_metrics(metrics: Mapping[str, Any], rows: Rows) -> list[Block]:
    """Other metrics that were predicted with the loss, by their power laws against compute."""
    lines = []
    for name, said in metrics.items():
        values = [row[name] for row in rows if row["kind"] == "heldout" and name in row]
        if values:
            low, high = said["interval"] or (float("nan"), float("nan"))
            found = mean(values).value
            span = f"{said['predicted']:.4g} ({low:.4g} to {high:.4g})"
            lines.append([code(name), span, f"{found:.4g}", f"{said['predicted'] / found - 1:+.1%}"])
    return [Table(["predicted too", "law of compute, interval", "measured", "error"], lines)] if lines else []


def repetition(name: str, rows: Rows, data: Data, docs: Path) -> list[Block]:
    """What the law of repeated data says (Muennighoff et al. 2023)."""
    del name, data, docs
    columns = ("params", "tokens", "unique_tokens", "loss")
    try:
        fit = fit_repetition(*(np.array([row[column] for row in rows]) for column in columns))
    except UserError as error:
        return [Text(f"No law of repetition: {error}.")]
    interval = fit.interval("repeats")
    span = f" (80% interval {interval[0]:.3g} to {interval[1]:.3g})" if interval else ""
    half, tenth = (float(fit.law.epochs_until(worth)) for worth in (0.5, 0.1))
    return [
        Text(
            f"R_D* = {fit.law.repeats:.3g}{span} from {len(rows)} runs, {fit.repeated} of which repeat their data. By"
            f" it a repeated clip is worth half of a new one after {half:.3g} epochs and a tenth after {tenth:.3g}."
        ),
        *([Points([f"Warning: {line}." for line in fit.warnings])] if fit.warnings else []),
    ]


def boxes(name: str, rows: Rows, data: Data, docs: Path) -> list[Block]:
    """How much of the subjects a square crop keeps: by the film's boxes, and by those of the data set's subjects."""
    del name, rows, docs
    with CAPTIONS_FILE.open(newline="", encoding="utf-8") as file:
        film = [row["subject_box"] for row in csv.DictReader(file) if row["subject_box"]]
    film_kept = np.array([box_kept([float(x) for x in box.split(",")], FILM_ASPECT) for box in film])
    dataset = Dataset(next(iter(data.values())))
    if SUBJECT_MEASURES[0] in dataset.index("val").measures:
        own = f"{dataset.path.name}, by its columns", subjects_kept(dataset)
    else:
        own = "balls, exact", _balls_kept(dataset)
    lines = [
        [title, str(len(v)), f"{v.mean():.1%}", f"{(v > 0.999).mean():.1%}", f"{(v < 0.5).mean():.1%}"]
        for title, v in (("film, by eye", film_kept), own)
    ]
    head = ["subjects", "boxes", "kept on average", "kept whole", "less than half kept"]
    return [Text("What a square crop out of the middle keeps of the data's subjects:"), Table(head, lines)]


def subjects_kept(dataset: Dataset) -> np.ndarray:
    """`box_kept` of every clip whose subject its source, or a detector, has found: split by split, in order."""
    kept: list[float] = []
    for split in dataset.splits:
        index = dataset.index(split)
        boxes_N4 = np.stack([index.measures[side] for side in SUBJECT_MEASURES], axis=1)
        aspect_N = index.width / index.height
        known = ~np.isnan(boxes_N4).any(axis=1)
        kept += [box_kept(box, float(a)) for box, a in zip(boxes_N4[known], aspect_N[known], strict=True)]
    return np.array(kept)


def _balls_kept(dataset: Dataset) -> np.ndarray:
    """`box_kept` of every ball of the split val, by the simulator."""
    kept: list[float] = []
    for i in range(dataset.size("val")):
        clip = dataset.example("val", i)
        radii, frames = np.asarray(clip["radii"]), len(clip["video"])
        size = tuple(side / float(clip["pixels_per_unit"]) for side in reversed(clip["video"].shape[1:3]))
        kept += ball_boxes_kept(np.asarray(clip["positions"]).reshape(frames, -1, 2), radii, (size[0], size[1]))
    return np.array(kept)


def fill(name: str, rows: Rows, data: Data, docs: Path) -> list[Block]:
    """How full the rows of each arm are, and how full batches of each bucket's own shape would be."""
    del rows, docs
    experiment = spec.load(name)
    path = data[next(iter(experiment.data))]
    dataset = Dataset(path)
    lines = []
    for arm in experiment.arms:
        config = build(merged(dict(experiment.base), {**arm.fields, "data.path": str(path)}), Config).data
        epoch = pipeline.make_plan(dataset, config, dataset.patch, seed=0).epoch(0)
        own = f"{own_shapes(epoch.tokens, config.buckets):.1%}" if config.buckets else ""
        lines.append([arm.name, f"{epoch.tokens.sum() / (epoch.rows * config.row_tokens):.1%}", own])
    head = ["arm", "slots of its rows that are filled", "in batches of shapes of their own"]
    return [Text("Counted over the first epoch of seed 0, captions included:"), Table(head, lines)]


def own_shapes(tokens_N: np.ndarray, buckets: int) -> float:
    """Share of slots that is filled when the examples of a bucket of length are padded to its longest, and no more."""
    split = np.array_split(np.sort(tokens_N), min(buckets, len(tokens_N)))
    return float(tokens_N.sum() / sum(len(bucket) * bucket[-1] for bucket in split))


NOTES: dict[str, tuple[str, Callable[[str, Rows, Data, Path], list[Block]]]] = {
    "prediction": ("Predicted before it was run", prediction),
    "repetition": ("The law of repeated data", repetition),
    "boxes": ("Subjects under a square crop", boxes),
    "fill": ("How full rows are", fill),
}
"""Heading and maker of each part, by the name that an experiment calls it."""
