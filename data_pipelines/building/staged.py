"""What became of a job, on disk, chunk by chunk: written by a worker, read by the builder.

    00000012-0000.json    clips and rejections, in order
    00000012-0000.bin     the arrays of the clips, raw, one after another
    spare/                .bin files that are not needed any more

A chunk is finished when its .json is there, and never changes. Its .bin is given back as soon as its clips lie in
closed shards: an hours-long file takes no more of the disk than a few chunks. A few are kept to be written over, since
that takes a tenth of the time that the system needs for a file of new pages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import mmap
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_pipelines.media.clip import Clip, Cut, Outcome, Rejection

CHUNK_BYTES = 128 << 20
"""A chunk with so many bytes of arrays is finished."""

SPARE, SPARES = "spare", 4
"""Folder of the files that are kept to be written over, and how many there may be."""

_KINDS: dict[str, type[Clip] | type[Rejection] | type[Cut]] = {"clip": Clip, "rejection": Rejection, "cut": Cut}


def make_folder(part: Path) -> Path:
    """The folder of a part's outcomes, without what a killed build left half written."""
    folder = part / "staged"
    (folder / SPARE).mkdir(parents=True, exist_ok=True)
    for leftover in folder.glob("*.partial"):
        leftover.unlink(missing_ok=True)
    return folder


@dataclasses.dataclass(frozen=True)
class Chunk:
    """Part `index` of what became of job number `job`."""

    folder: Path
    job: int
    index: int

    @property
    def json(self) -> Path:
        return self.folder / f"{self.job:08d}-{self.index:04d}.json"

    @property
    def bin(self) -> Path:
        return self.folder / f"{self.job:08d}-{self.index:04d}.bin"

    def is_finished(self) -> bool:
        return self.json.exists()

    def is_last(self) -> bool:
        """Whether this finished chunk is the last of its job."""
        return bool(self._content()["last"])

    def has_arrays(self) -> bool:
        """Whether the arrays of this finished chunk are (still) there, whole. What was written over may be longer."""
        return self.bin.exists() and self.bin.stat().st_size >= self._content()["bytes"]

    def give_back(self) -> None:
        """Frees the arrays of this finished chunk."""
        if len(os.listdir(self.folder / SPARE)) < SPARES:
            with contextlib.suppress(FileNotFoundError):  # given back before
                self.bin.replace(self.folder / SPARE / self.bin.name)
        else:
            self.bin.unlink(missing_ok=True)

    def read(self) -> list[Staged]:
        """The outcomes of this finished chunk, without pixels."""
        return [Staged(self.bin, entry) for entry in self._content()["outcomes"]]

    def _content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.json.read_text(encoding="utf-8"))
        return content


def finished_chunks(folder: Path, job: int) -> list[Chunk]:
    """The finished chunks of a job, from the first on."""
    chunks: list[Chunk] = []
    while (chunk := Chunk(folder, job, len(chunks))).is_finished():
        chunks.append(chunk)
    return chunks


def write(
    folder: Path, job: int, first: int, outcomes: Iterable[tuple[int, Outcome]], begin: Callable[[int], None]
) -> None:
    """Writes outcomes as they come; one clip at a time is held in memory.

    Args:
      folder, job: where, and of which job.
      first: index of the first chunk to write.
      outcomes: each with the position of its input in the job.
      begin: called with the index of a chunk before it is begun.
    """
    index, chunk = first, None
    begin(index)
    for position, outcome in outcomes:
        chunk = chunk or _Writing(Chunk(folder, job, index))  # only now, as by now there may be a spare file
        chunk.add(position, outcome)
        del outcome  # so that the next clip takes the same memory
        if chunk.bytes >= CHUNK_BYTES:
            chunk.finish(last=False)
            index, chunk = index + 1, None
            begin(index)
    (chunk or _Writing(Chunk(folder, job, index))).finish(last=True)


class _Writing:
    """A chunk in the making."""

    def __init__(self, chunk: Chunk) -> None:
        self.chunk = chunk
        self._described: list[dict[str, Any]] = []
        # A worker whose builder was killed may still be at the same job: each has files of its own until they are
        # whole.
        self._partial = chunk.folder / f"{chunk.job:08d}-{chunk.index:04d}.{os.getpid()}.partial"
        for spare in (chunk.folder / SPARE).iterdir():
            with contextlib.suppress(FileNotFoundError):  # another worker was faster
                spare.replace(self._partial)
                break
        self._file = self._partial.open("r+b" if self._partial.exists() else "wb")

    @property
    def bytes(self) -> int:
        return self._file.tell()

    def add(self, position: int, outcome: Outcome) -> None:
        self._described.append({"input": position, **_describe(outcome, self._file)})

    def finish(self, last: bool) -> None:
        size = self.bytes
        self._file.close()
        self._partial.replace(self.chunk.bin)
        content = {"bytes": size, "last": last, "outcomes": self._described}
        self._partial.write_text(json.dumps(content), encoding="utf-8")
        self._partial.replace(self.chunk.json)


@dataclasses.dataclass(frozen=True)
class Staged:
    """One outcome of a job; `entry` is its description, `path` the file with its arrays."""

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

        The arrays are the file's own memory, without a copy: they are to be used before the chunk is given back. The
        ledger's shape of the video is in `shape` either way.
        """
        data = self._mapped() if pixels and self.is_clip else None
        values = {name: self._value(value, data) for name, value in self.entry.items() if name not in ("kind", "input")}
        if values.get("shape_before"):
            values["shape_before"] = tuple(values["shape_before"])
        if "notes" in values:
            values["notes"] = tuple(values["notes"])
        if "extra" in values:
            values["extra"] = {name: self._value(value, data) for name, value in values["extra"].items()}
        return _KINDS[self.entry["kind"]](**values)

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(frames, height, width) of a clip."""
        video = self.entry.get("video_TYXC")
        return tuple(video["shape"][:3]) if video else None

    def _mapped(self) -> mmap.mmap:
        with self.path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def _value(self, value: Any, data: mmap.mmap | None) -> Any:
        if not (isinstance(value, dict) and "offset" in value):
            return value
        dtype, shape = np.dtype(value["dtype"]), tuple(value["shape"])
        if data is None:
            empty = np.zeros((0,) * (len(shape) - 1) + shape[-1:] if len(shape) > 1 else shape, dtype)
            return empty[()]
        count = int(np.prod(shape))
        if value["offset"] + count * dtype.itemsize > len(data):
            raise OSError(f"{self.path} is cut short; remove it to have it made again")
        return (np.frombuffer(data, dtype, count, value["offset"]) if count else np.zeros(0, dtype)).reshape(shape)[()]


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
