"""One shard: a file of records, and the rows of the index that tell of them."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from data_pipelines.media.traits import Traits
from data_pipelines.packing.index import Index, index_of
from data_pipelines.reading.records import Encoder, Record, make_features
from vdit.errors import UserError
from vdit.io.storage.failures import as_user_error
from vdit.io.storage.signature import file_signature
from vdit.patches import Patch

RECORD_OPTIONS = "group_size:1,zstd:-12"
"""One record a group, for random access. Against no compression this makes the film 1.7 times smaller, physics with
its caption features 4.6 times; large frames shrink as much as at level -5, and take less time to write and to read."""


NONE = Traits({}, None)


@dataclasses.dataclass(frozen=True)
class RecordKind:
    """What the records of a data set have in common.

    Attributes:
      features: their TFDS features, as JSON.
      dtype, channels: of the stored array.
      captions: kinds of caption.
    """

    features: str
    dtype: str
    channels: int
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Shard:
    """A finished shard.

    Attributes:
      file: its name.
      bytes: its size.
      signature: of its content, see `vdit.io.storage.signature`.
      kind: of its records; None if there are none.
      index: one row for each record, in order; None if there are none.
      hash_NB, embedding_NE: hashes and embeddings of the clips; None if they have none.
    """

    file: str
    bytes: int
    signature: str
    kind: RecordKind | None
    index: Index | None
    hash_NB: np.ndarray | None = None
    embedding_NE: np.ndarray | None = None

    @property
    def examples(self) -> int:
        return len(self.index) if self.index else 0


class ShardWriter:
    """Writes one shard; the same records give the same bytes.

    Args:
      path: file of this machine to write.
      patch: every clip must fit it.
    """

    def __init__(self, path: Path, patch: Patch) -> None:
        self._path, self._patch = path, patch
        self._rows: list[tuple[int, tuple[int, ...], float, list[int]]] = []
        self._traits: list[Traits] = []
        self._encoder: Encoder | None = None
        self._kind: RecordKind | None = None
        self.bytes = 0
        with _reporting(path):
            self._writer = array_record_module.ArrayRecordWriter(os.fspath(path), RECORD_OPTIONS)

    def add(self, record: Record, traits: Traits = NONE) -> None:
        """Appends a record.

        Args:
          record: of the same kind as the others.
          traits: of the clip; of the same kinds as those of the others.

        Raises:
          ValueError: if the clip does not fit the patch, or is not like the first.
          UserError: if it cannot be written.
        """
        video_TYXC = record.video_TYXC
        self._patch.grid(*video_TYXC.shape[:3])
        if self._encoder is None or self._kind is None:
            self._encoder = Encoder(make_features(record))
            features = json.dumps(self._encoder.features.to_json(), sort_keys=True)
            self._kind = RecordKind(features, video_TYXC.dtype.name, video_TYXC.shape[-1], tuple(record.text))
        if (video_TYXC.dtype.name, tuple(record.text)) != (self._kind.dtype, self._kind.captions):
            raise ValueError(f"record {record.id} has other dtypes or captions than the first record")
        data = self._encoder(record)
        with _reporting(self._path):
            self._writer.write(data)
        self.bytes += len(data)
        self._rows.append((record.id, video_TYXC.shape[:3], record.fps, [len(text) for text in record.text.values()]))
        self._traits.append(traits)

    def close(self, name: str) -> Shard:
        """Finishes the file, which will be called `name`; it is on the disk when this returns.

        Raises:
          UserError: if it cannot be read back.
        """
        with _reporting(self._path):
            self._writer.close()
            with self._path.open("rb") as file:
                os.fsync(file.fileno())
        reader = array_record_module.ArrayRecordReader(os.fspath(self._path))
        if not reader.ok() or reader.num_records() != len(self._rows):
            raise UserError(
                f"{self._path.parent / name} cannot be read back; make room on the disk or choose another --out"
            )
        reader.close()
        index = make_index(self._rows, [each.measures for each in self._traits]) if self._rows else None
        hash_NB, embedding_NE = (
            _stacked([getattr(each, n) for each in self._traits]) for n in ("hash_B", "embedding_E")
        )
        size, signature = os.path.getsize(self._path), file_signature(self._path)
        return Shard(name, size, signature, self._kind, index, hash_NB, embedding_NE)


def without(shard: Shard, source: Path, target: Path, keeps_N: np.ndarray) -> Shard:
    """Writes some records of a shard to another file, as they are.

    Args:
      shard: what is known of it.
      source: its file on this machine.
      target: file to write.
      keeps_N: which records are kept.

    Raises:
      UserError: if it cannot be read or written.
    """
    kept = np.flatnonzero(keeps_N).tolist()
    with _reporting(target):
        reader = array_record_module.ArrayRecordReader(os.fspath(source))
        writer = array_record_module.ArrayRecordWriter(os.fspath(target), RECORD_OPTIONS)
        for record in kept:
            writer.write(reader.read([record])[0])
        writer.close()
        reader.close()
    with target.open("rb") as file:
        os.fsync(file.fileno())
    index = index_of({name: array[kept] for name, array in shard.index.arrays().items()}) if shard.index else None
    hash_NB, embedding_NE = (None if rows is None else rows[kept] for rows in (shard.hash_NB, shard.embedding_NE))
    size, signature = os.path.getsize(target), file_signature(target)
    if not kept:
        return Shard(shard.file, size, signature, None, None)
    return Shard(shard.file, size, signature, shard.kind, index, hash_NB, embedding_NE)


def _stacked(rows: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """One array of all rows; None if there are none."""
    known = [row for row in rows if row is not None]
    return np.stack(known) if known else None


@contextlib.contextmanager
def _reporting(path: Path) -> Iterator[None]:
    """Makes the writer's errors (a full disk) the user's."""
    try:
        yield
    except RuntimeError as error:
        raise as_user_error(error) or UserError(f"cannot write {path.parent} ({str(error).split(';')[0]})") from error


def make_index(
    rows: Sequence[tuple[int, tuple[int, ...], float, list[int]]], measures: Sequence[Mapping[str, np.float32]]
) -> Index:
    """The index of examples given as (id, (frames, height, width), fps, caption lengths), and of their measures."""
    ids, shapes, fps, tokens = zip(*rows, strict=True)
    shape_N3 = np.array(shapes, np.int32)
    return Index(
        id=np.array(ids, np.uint64),
        frames=shape_N3[:, 0].copy(),
        height=shape_N3[:, 1].copy(),
        width=shape_N3[:, 2].copy(),
        fps=np.array(fps, np.float32),
        text_tokens=np.array(tokens, np.int32).reshape(len(ids), -1),
        measures={name: np.array([each[name] for each in measures], np.float32) for name in measures[0]},
    )


def features_of(kind: RecordKind) -> tfds.features.FeaturesDict:
    """The TFDS features of records of that kind."""
    return tfds.features.FeaturesDict.from_json(json.loads(kind.features))


def pack(values: dict[str, Any], arrays: dict[str, Any]) -> bytes:
    """JSON and arrays as the bytes of one file, which depend on nothing else."""
    file = io.BytesIO()
    np.savez(file, values=np.frombuffer(json.dumps(values).encode(), np.uint8), **arrays)
    return file.getvalue()


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What `pack` was given."""
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("values").tobytes()), arrays
