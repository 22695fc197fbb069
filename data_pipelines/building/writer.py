"""Writing ArrayRecord shards that a killed build can go on with, and a whole data set of one writer.

A shard is closed once and for all: its examples' shapes are written beside it, and a writer that is started again in
the same folder goes on after the last closed shard. Where a shard ends follows from the records alone, so it does not
matter how often a build was interrupted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath

from data_pipelines.building.publish import PART_FILE, publish
from data_pipelines.packing.index import Index
from data_pipelines.reading.records import Encoder, Record, make_features
from vdit.errors import UserError
from vdit.patches import Patch

SHARD_BYTES = 128 << 20
"""Serialised size at which a new shard is begun."""

RECORD_OPTIONS = "group_size:1,zstd:-12"
"""One record a group, for random access. Against no compression this makes the film 1.7 times smaller, physics with
its caption features 4.6 times; large frames shrink as much as at level -5, and take less time to write and to read."""


class PartWriter:
    """Writes examples in the order they are added, and goes on where an earlier writer of the folder was stopped.

    Args:
      directory: an existing folder.
      patch: every clip must fit it.
      shard_bytes: see `SHARD_BYTES`.
    """

    def __init__(self, directory: epath.Path, patch: Patch, shard_bytes: int = SHARD_BYTES) -> None:
        self._directory, self._patch, self._shard_bytes = directory, patch, shard_bytes
        self._splits: dict[str, _SplitWriter] = {}
        self._encoder: Encoder | None = None
        self._dtype, self._channels, self._captions = np.dtype(np.uint8), 0, list[str]()  # of all records

    def closed(self) -> dict[str, int]:
        """Examples in closed shards, by split. As many must be passed over with `skip`."""
        # The writers themselves are made as examples come: the data set lists its splits in that order.
        splits = [path.name.removesuffix("-00000.npz") for path in self._directory.glob("*-00000.npz")]
        return {split: _SplitWriter(self._directory, split, self._shard_bytes).written for split in splits}

    def written(self, split: str) -> int:
        """Examples of a split that lie in closed shards."""
        return self._split(split).written

    def describe(self, record: Record) -> None:
        """Says what the examples are like, if nothing has been added yet; only dtypes and axes are looked at."""
        if self._encoder is None:
            self._encoder, video = Encoder(make_features(record)), record.video_TYXC
            self._dtype, self._channels, self._captions = video.dtype, video.shape[-1], list(record.text)

    def skip(self, split: str) -> bool:
        """Passes over the next example of a split if it lies in a closed shard; says whether it did."""
        return self._split(split).skip()

    def add(self, split: str, record: Record) -> None:
        """Appends an example to a split.

        Raises:
          ValueError: if the clip does not fit the patch, or is not like the data set's first.
          UserError: if it cannot be written.
        """
        self._patch.grid(*record.video_TYXC.shape[:3])
        self.describe(record)
        assert self._encoder is not None
        if record.video_TYXC.dtype != self._dtype or list(record.text) != self._captions:
            raise ValueError(f"record {record.id} has other dtypes or captions than the first record")
        self._split(split).add(self._encoder(record), record)

    def close(self, meta: dict[str, Any]) -> None:
        """Closes the last shards and writes what `publish` needs to know.

        Args:
          meta: what `vdit.json` says beside format, patch, channels, dtype, captions and splits.

        Raises:
          UserError: if a shard cannot be read back.
        """
        described = {split: writer.close() for split, writer in self._splits.items()}
        described = {split: shards for split, shards in described.items() if shards}
        about: dict[str, Any] = {"patch": list(dataclasses.astuple(self._patch)), "splits": described, "meta": meta}
        if self._encoder is not None:
            self._encoder.features.save_config(os.fspath(self._directory))
            about |= {"channels": self._channels, "dtype": self._dtype.name, "captions": self._captions}
        partial = self._directory / f"{PART_FILE}.partial"
        partial.write_text(json.dumps(about), encoding="utf-8")
        partial.replace(self._directory / PART_FILE)

    @property
    def features(self) -> tfds.features.FeaturesDict | None:
        return self._encoder.features if self._encoder else None

    def _split(self, split: str) -> _SplitWriter:
        if split not in self._splits:
            self._splits[split] = _SplitWriter(self._directory, split, self._shard_bytes)
        return self._splits[split]


class DatasetWriter(PartWriter):
    """Writes a whole data set in one go; `finish` makes the directory complete.

    Args:
      directory: an existing, empty folder.
      name: TFDS name of the data set; the shards are called after it.
      patch: every clip must fit it.
      shard_bytes: see `SHARD_BYTES`.
    """

    def __init__(self, directory: epath.Path, name: str, patch: Patch, shard_bytes: int = SHARD_BYTES) -> None:
        super().__init__(directory, patch, shard_bytes)
        self._name = name

    def finish(self, meta: dict[str, Any]) -> None:
        """Closes the shards and writes the metadata and indexes.

        Args:
          meta: what `vdit.json` says beside format, patch, channels, dtype, captions and splits.

        Raises:
          ValueError: if nothing was added, or ids are not distinct.
          UserError: if a shard cannot be read back.
        """
        if self.features is None:
            raise ValueError("no examples were added")
        self.close(meta)
        publish([self._directory], self._directory, self._name)
        (self._directory / PART_FILE).unlink()
        for split in self._splits:
            for path in self._directory.glob(f"{split}-*.npz"):
                path.unlink()


class _SplitWriter:
    """Shards of one split."""

    def __init__(self, directory: epath.Path, split: str, shard_bytes: int) -> None:
        self._directory, self._split, self._shard_bytes = directory, split, shard_bytes
        self._writer: Any = None
        self._bytes = 0
        self._rows: list[tuple[int, tuple[int, ...], float, list[int]]] = []
        self._lengths: list[int] = []
        while self._shapes(len(self._lengths)).exists():
            with self._shapes(len(self._lengths)).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                self._lengths.append(len(arrays["id"]))
        self.written = sum(self._lengths)
        self._skipped = 0

    def skip(self) -> bool:
        if self._skipped == self.written or self._writer is not None:
            return False
        self._skipped += 1
        return True

    def add(self, data: bytes, record: Record) -> None:
        if self._writer is not None and self._bytes + len(data) > self._shard_bytes:
            self._close_shard()
        if self._writer is None:
            self._writer = array_record_module.ArrayRecordWriter(os.fspath(self._records()), RECORD_OPTIONS)
        with self._reporting():
            self._writer.write(data)
        self._bytes += len(data)
        tokens = [len(text_ME) for text_ME in record.text.values()]
        self._rows.append((record.id, record.video_TYXC.shape[:3], record.fps, tokens))
        if self._bytes >= self._shard_bytes:  # nothing more fits in, so that the builder's copy can go
            self._close_shard()

    def close(self) -> list[dict[str, Any]]:
        """Closes the last shard and describes all."""
        if self._writer is not None:
            self._close_shard()
        shards = []
        for i, length in enumerate(self._lengths):
            size = self._records(i).stat().length
            shards.append({"file": self._records(i).name, "shapes": self._shapes(i).name, "examples": length})
            shards[-1]["bytes"] = size
        return shards

    def _records(self, shard: int | None = None) -> epath.Path:
        return self._directory / f"{self._split}-{len(self._lengths) if shard is None else shard:05d}.tmp"

    def _shapes(self, shard: int) -> epath.Path:
        return self._directory / f"{self._split}-{shard:05d}.npz"

    def _close_shard(self) -> None:
        with self._reporting():
            self._writer.close()
        path, length = self._records(), len(self._rows)
        reader = array_record_module.ArrayRecordReader(os.fspath(path))
        if not reader.ok() or reader.num_records() != length:
            raise UserError(f"{path} cannot be read back; make room on the disk or choose another --out")
        reader.close()
        shapes = self._shapes(len(self._lengths))
        partial = shapes.with_name(shapes.name + ".partial")
        make_index(self._rows).save(partial)
        partial.replace(shapes)  # from here on the shard is closed
        self._lengths.append(length)
        self.written = self._skipped = self.written + length
        self._writer, self._bytes, self._rows = None, 0, []

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Makes the writer's errors (a full disk) the user's."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).split(";")[0]
            raise UserError(f"cannot write {self._directory} ({reason}); make room or choose another --out") from error


def make_index(rows: list[tuple[int, tuple[int, ...], float, list[int]]]) -> Index:
    """The index of examples given as (id, (frames, height, width), fps, caption lengths)."""
    ids, shapes, fps, tokens = zip(*rows, strict=True)
    shape_N3 = np.array(shapes, np.int32)
    return Index(
        id=np.array(ids, np.uint64),
        frames=shape_N3[:, 0].copy(),
        height=shape_N3[:, 1].copy(),
        width=shape_N3[:, 2].copy(),
        fps=np.array(fps, np.float32),
        text_tokens=np.array(tokens, np.int32).reshape(len(ids), -1),
    )
