"""The folder of a published Wan pipeline: what it makes, and which of its networks is for which times."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from vdit.errors import UserError
from vdit.io.files import read_json

INDEX = "model_index.json"
CLASSES = ("WanPipeline", "WanImageToVideoPipeline")
EXPERTS = ("transformer", "transformer_2")
"""Folders of the networks; the second is there where two experts share the times: the first has the noisier ones."""

ALL_TIMES = (0.0, 1.0)


class Pipeline(NamedTuple):
    """What model_index.json says.

    Attributes:
      folder: in which it lies.
      image_to_video: whether a first frame is always given.
      boundary: the time from which on the first expert is asked, and the second below it; None if there is one network.
      time_per_token: whether given tokens have time 0 (Wan 2.2 TI2V).
    """

    folder: Path
    image_to_video: bool
    boundary: float | None
    time_per_token: bool

    def times(self, expert: str) -> tuple[float, float]:
        """The range of times of a network, a name of `EXPERTS`."""
        if self.boundary is None:
            return ALL_TIMES
        return (self.boundary, 1.0) if expert == EXPERTS[0] else (0.0, self.boundary)


def read_pipeline(folder: str | os.PathLike[str]) -> Pipeline:
    """Reads model_index.json.

    Raises:
      UserError: if it is damaged, or of another pipeline.
    """
    path = Path(folder)
    values = read_json(path / INDEX, mend="fetch the pipeline again")
    kind, boundary = values.get("_class_name"), values.get("boundary_ratio")
    if kind not in CLASSES:
        raise UserError(f"{path} holds a {kind}; only {' and '.join(CLASSES)} can be sampled")
    if boundary is not None and not (isinstance(boundary, int | float) and 0 < boundary < 1):
        raise UserError(f"{path / INDEX} has boundary_ratio={boundary!r}, not a time between 0 and 1")
    time_per_token = bool(values.get("expand_timesteps"))
    return Pipeline(path, kind == CLASSES[1] and not time_per_token, boundary, time_per_token)


def check_experts(pipeline: Pipeline) -> None:
    """Raises UserError unless all networks are there that the pipeline needs, and no other."""
    needed = EXPERTS if pipeline.boundary is not None else EXPERTS[:1]
    for name in EXPERTS:
        if (there := (pipeline.folder / name).is_dir()) and name not in needed:
            raise UserError(
                f"{pipeline.folder} has two experts, but its {INDEX} no boundary_ratio, the time at which one takes "
                "over from the other; fetch the pipeline again"
            )
        if not there and name in needed:
            partner = f" beside the other expert's (boundary_ratio {pipeline.boundary})" * (len(needed) > 1)
            raise UserError(f"{pipeline.folder} has no folder {name}{partner}; fetch the pipeline again")


def times_of_expert(transformer: str | os.PathLike[str]) -> tuple[float, float]:
    """The range of times that the network in a folder is for: all, but for an expert in the folder of its pipeline.

    Raises:
      UserError: if it is a second expert without the pipeline that says what its times are.
    """
    path = Path(transformer)
    if path.name in EXPERTS and (path.parent / INDEX).exists():
        return read_pipeline(path.parent).times(path.name)
    if path.name == EXPERTS[1]:
        raise UserError(
            f"{path} is one expert of two, and no {INDEX} beside it says for which times; "
            "keep it in the folder of its pipeline"
        )
    return ALL_TIMES
