"""Measures of a finished run, by name: each gives numbers by metric, kept beside the run so that it is made once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.reading.store import Dataset
from data_pipelines.reading.training_data import validation_data
from data_pipelines.sources.physics.world import KINDS
from vdit.errors import UserError
from vdit.evaluation.balls.framing import subject_in_frame
from vdit.evaluation.balls.permanence import permanence_of
from vdit.evaluation.balls.physics_task import continue_clips, physics_clips, physics_errors, physics_floor, score
from vdit.evaluation.generated import adherence_of, distances_of, lite_features, text_to_video
from vdit.evaluation.validation import evaluate_run
from vdit.generation.restore import generator_of, load_run
from vdit.io.files import read_json, write_json
from vdit.parallel.mesh import use_mesh

SIDES = {"in": "val", "out": "ood"}
"""Suffix of a metric and the split it is measured on."""
Metrics = dict[str, Any]


@dataclasses.dataclass
class Finished:
    """A finished run and the data sets of its experiment.

    Attributes:
      workdir: of the run.
      data: folders by name; the first is what is measured on unless a measure names another.
      clips: generated for each measure and split.
    """

    workdir: Path
    data: Mapping[str, Path]
    clips: int

    @functools.cached_property
    def run(self) -> Any:
        return load_run(self.workdir)

    @functools.cached_property
    def generator(self) -> Any:
        return generator_of(self.run)

    @property
    def own(self) -> Dataset:
        """The data set that the run was trained on, the first of several."""
        return _opened(Path(self.run.config.data.paths[0]))

    def dataset(self, name: str) -> Dataset:
        return _opened(self.data[name or next(iter(self.data))])


@functools.cache
def _opened(path: Path) -> Dataset:
    """One object for each data set, so that what is known of its clips is kept from run to run."""
    return Dataset(path)


def measured(finished: Finished, names: tuple[str, ...]) -> Metrics:
    """All metrics of a run; what is not there yet is measured and written beside it."""
    out: Metrics = {}
    for name in names:
        kind, _, of = name.partition(":")
        if kind not in MEASURES:
            raise UserError(f"measure {name!r} is not one of {', '.join(MEASURES)}, perhaps with :DATA")
        where = of or ("own" if kind == "loss" else next(iter(finished.data)))
        path = finished.workdir / "measures" / f"{kind}-{where}-{finished.clips}.json"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            write_json(path, MEASURES[kind](finished, of))
        out |= read_json(path)
    return out


def _loss(finished: Finished, of: str) -> Metrics:
    """Validation loss, of another data set as loss_NAME."""
    if not of:
        validation = read_json(finished.workdir / "result.json")["validation"]
    else:
        config = finished.run.config
        data = dataclasses.replace(config.data, path=str(finished.data[of]), weights=(), stages=())
        run = dataclasses.replace(finished.run, config=dataclasses.replace(config, data=data))
        with use_mesh(run.mesh):
            validation = evaluate_run(run, validation_data(Dataset(finished.data[of]), data))
    suffix = f"_{of}" if of else ""
    out = {f"loss{suffix}": validation["loss"]}
    if "ood" in validation:
        out[f"loss_ood{suffix}"] = validation["ood"]["loss"]
    return out


def _velocity(finished: Finished, of: str) -> Metrics:
    """Velocity error of continued clips and the share of balls that were lost, in and out of distribution."""
    data, out = finished.dataset(of), {}
    before = _before(of, finished.data)
    velocity, lost = f"{before}velocity", f"{before}lost"
    for side, split in SIDES.items():
        found = physics_errors(finished.generator, data, split, finished.clips)
        out[f"{velocity}_{side}"], out[f"{lost}_{side}"] = found["mean"], found["lost"]
        out[f"{velocity}_{side}_low"], out[f"{velocity}_{side}_high"] = found["interval"]
        out |= {f"{velocity}_{side}_{name}": value for name, value in found["baselines"].items()}
        for odd, part in found.get("apart", {}).items():
            out[f"{velocity}_{odd}"], out[f"{lost}_{odd}"] = part["mean"], part["lost"]
            out |= {f"{velocity}_{odd}_{name}": value for name, value in part["baselines"].items()}
    return out


def _before(name: str, data: Mapping[str, Path]) -> str:
    """What stands before a metric of a data set: its name, but for the first."""
    return "" if name in ("", next(iter(data))) else f"{name}_"


def _kinds(finished: Finished, of: str) -> Metrics:
    """Velocity error by kind of motion."""
    data, out = finished.dataset(of), {}
    for side, split in SIDES.items():
        long = physics_clips(data, split, data.size(split))
        kinds = {i: data.example(split, i)["kind"] for i in long}
        for kind in KINDS:
            numbers = [i for i in long if kinds[i] == kind][: finished.clips]
            if numbers:
                videos = continue_clips(finished.generator, data, split, numbers)
                out[f"velocity_{kind}_{side}"] = score(videos, data, split, numbers)["mean"]
    return out


def _adherence(finished: Finished, of: str) -> Metrics:
    """Shares of text-to-video clips that show what the fullest caption says, by the kind of their own caption."""
    data, out = finished.dataset(of), Metrics()
    kinds = data.meta["captions"]
    numbers = list(range(min(finished.clips, data.size("val"))))
    for kind in kinds:
        videos = text_to_video(finished.generator, data, "val", numbers, kind)
        found = adherence_of(videos, data, "val", numbers, kinds[-1])["generated"]
        suffix = f"_from_{kind}" if len(kinds) > 1 else ""
        out |= {f"adherence_{name}{suffix}": value["value"] for name, value in found.items()}
    return out


def _distance(finished: Finished, of: str) -> Metrics:
    """Kernel distance of text-to-video clips from true ones, and that between true ones."""
    data = finished.dataset(of)
    numbers = list(range(min(finished.clips, data.size("val") // 2)))
    videos = text_to_video(finished.generator, data, "val", numbers)
    found = distances_of(videos, data, "val", numbers, lite_features())
    return {"kid": found["generated"]["kernel"]["value"], "kid_floor": found["floor"]["kernel"]["value"]}


def _framing(finished: Finished, of: str) -> Metrics:
    """Share of the balls of captions that text-to-video clips of the data's own sizes show whole."""
    data = finished.dataset(of)
    numbers = list(range(min(finished.clips, data.size("val"))))
    kind = data.meta["captions"][-1]
    videos = text_to_video(finished.generator, data, "val", numbers, kind)
    captions = [data.example("val", i)[f"caption_{kind}"] for i in numbers]
    whole = [subject_in_frame(video, caption) for video, caption in zip(videos, captions, strict=True)]
    return {"subject_in_frame": float(np.mean(whole))}


def _permanence(finished: Finished, of: str) -> Metrics:
    """Shares of frames after a wall in which the ball is there, and where it should be; and without a wall."""
    data, out = finished.dataset(of), Metrics()
    for side, split in SIDES.items():
        for kind, found in permanence_of(finished.generator, data, split, finished.clips).items():
            out |= {f"{name}_{kind}_{side}": value["mean"] for name, value in found.items()}
    return out


MEASURES: dict[str, Callable[[Finished, str], Metrics]] = {
    "loss": _loss,
    "velocity": _velocity,
    "kinds": _kinds,
    "adherence": _adherence,
    "distance": _distance,
    "framing": _framing,
    "permanence": _permanence,
}


def floors(data: Mapping[str, Path], names: tuple[str, ...], clips: int) -> Metrics:
    """Velocity errors of true clips, named as `_velocity` names those of generated ones."""
    out: Metrics = {}
    for name in names:
        for side, split in SIDES.items():
            floor = physics_floor(Dataset(data[name]), split, clips)
            out[f"{_before(name, data)}velocity_{side}"] = floor["mean"]
    return out
