"""What became of a job, on disk: written by a worker, read by the builder.

    00000012.json    clips and rejections, in order
    00000012.bin     the arrays of the clips, raw, one after another

A job is finished when its .json is there; the .bin is removed as soon as its clips lie in closed shards.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_pipelines.clip import Clip, Cut, Outcome, Rejection

_KINDS: dict[str, type[Clip] | type[Rejection] | type[Cut]] = {"clip": Clip, "rejection": Rejection, "cut": Cut}


def make_folder(part: Path) -> Path:
    """The folder of a part's outcomes, without what a killed build left half written."""
    folder = part / "staged"
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink(missing_ok=True)
    return folder


def json_path(folder: Path, job: int) -> Path:
    return folder / f"{job:08d}.json"


def bin_path(folder: Path, job: int) -> Path:
    return folder / f"{job:08d}.bin"


def write(folder: Path, job: int, outcomes: Iterable[Outcome]) -> None:
    """Writes the outcomes as they come; one clip at a time is held in memory."""
    described: list[dict[str, Any]] = []
    # A worker whose builder was killed may still be at the same job: each has files of its own until they are whole.
    partial = folder / f"{job:08d}.{os.getpid()}.partial"
    with partial.open("wb") as file:
        for outcome in outcomes:
            described.append(_describe(outcome, file))
        size = file.tell()
    partial.replace(bin_path(folder, job))
    partial.write_text(json.dumps({"bytes": size, "outcomes": described}), encoding="utf-8")
    partial.replace(json_path(folder, job))


def is_finished(folder: Path, job: int) -> bool:
    """Whether a job's outcomes are there."""
    return json_path(folder, job).exists()


def read(folder: Path, job: int) -> list[Staged]:
    """The outcomes of a finished job, without pixels."""
    content = json.loads(json_path(folder, job).read_text(encoding="utf-8"))
    return [Staged(bin_path(folder, job), entry) for entry in content["outcomes"]]


def has_arrays(folder: Path, job: int) -> bool:
    """Whether the arrays of a finished job are (still) there, whole."""
    size = json.loads(json_path(folder, job).read_text(encoding="utf-8"))["bytes"]
    path = bin_path(folder, job)
    return path.exists() and path.stat().st_size == size


@dataclasses.dataclass(frozen=True)
class Staged:
    """One outcome of a job."""

    path: Path
    entry: dict[str, Any]

    @property
    def is_clip(self) -> bool:
        return bool(self.entry["kind"] == "clip")

    @property
    def bytes(self) -> int:
        """Bytes of pixels."""
        video = self.entry.get("video_TYXC")
        return int(np.prod(video["shape"]) * np.dtype(video["dtype"]).itemsize) if video else 0

    def outcome(self, pixels: bool = True) -> Outcome:
        """The outcome as it was; without `pixels` its arrays are empty, of the right dtype and number of axes.

        The ledger's shape of the video is in `shape` either way.
        """
        values = {name: self._value(value, pixels) for name, value in self.entry.items() if name != "kind"}
        if values.get("shape_before"):
            values["shape_before"] = tuple(values["shape_before"])
        if "notes" in values:
            values["notes"] = tuple(values["notes"])
        if "extra" in values:
            values["extra"] = {name: self._value(value, pixels) for name, value in values["extra"].items()}
        return _KINDS[self.entry["kind"]](**values)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(frames, height, width) of a clip."""
        video = self.entry.get("video_TYXC")
        return tuple(video["shape"][:3]) if video else None

    def _value(self, value: Any, pixels: bool) -> Any:
        if not (isinstance(value, dict) and "offset" in value):
            return value
        dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
        if not pixels:
            empty = np.zeros((0,) * (len(shape) - 1) + shape[-1:] if len(shape) > 1 else shape, dtype)
            return empty[()]
        count = int(np.prod(shape))
        array = np.fromfile(self.path, dtype, count, offset=value["offset"]) if count else np.zeros(0, dtype)
        if len(array) != count:
            raise OSError(f"{self.path} is cut short; remove it to have it made again")
        return array.reshape(shape)[()]


def _describe(outcome: Outcome, file: IO[bytes]) -> dict[str, Any]:
    """The outcome as JSON; arrays go to the file."""
    entry = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    entry["kind"] = next(kind for kind, cls in _KINDS.items() if isinstance(outcome, cls))
    if isinstance(outcome, Clip):
        entry["video_TYXC"] = _store(outcome.video_TYXC, file)
        entry["extra"] = {
            name: value if isinstance(value, str) else _store(np.asarray(value), file)
            for name, value in outcome.extra.items()
        }
    return entry


def _store(array: np.ndarray, file: IO[bytes]) -> dict[str, Any]:
    place = {"offset": file.tell(), "dtype": array.dtype.str, "shape": array.shape}
    file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
    return place
