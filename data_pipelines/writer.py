"""Writing a data set directory: ArrayRecord shards with TFDS metadata, an index for each split, `vdit.json`."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from array_record.python import array_record_module
from etils import epath
from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits, utils

from data_pipelines.index import FORMAT, META_FILE, Index
from data_pipelines.records import Encoder, Record, make_features
from vdit.config import UserError
from vdit.patches import Patch

SHARD_BYTES = 128 << 20
"""Serialised size at which a new shard is begun."""

RECORD_OPTIONS = "group_size:1,zstd:1"
"""One record a group, for random access. Against no compression zstd makes the film 2.1 times smaller, physics with
its caption features 5.3 times; a core then reads 0.73 GB/s of video instead of 2.0 and 1.1.
Level 3 saves 2% more at most."""

LOCK_FILE = ".build-lock"


@contextlib.contextmanager
def partial_directory(out: epath.Path) -> Iterator[epath.Path]:
    """A folder beside `out` that becomes `out` if the block ends without an error, and else is removed.

    What a killed build left is cleared away.

    Raises:
      UserError: if another build is at work on it, or the folder is not a build's.
    """
    part = epath.Path(f"{os.fspath(out).rstrip('/')}.partial")
    if part.exists() and not (part / LOCK_FILE).exists() and any(part.iterdir()):
        raise UserError(f"{part} is in the way and not from an unfinished build; move it or choose another --out")
    try:
        part.mkdir(parents=True, exist_ok=True)
        lock = (part / LOCK_FILE).open("w")
    except OSError as error:
        raise UserError(f"cannot write {part} ({error}); choose another --out") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"another build is writing {part}; wait for it or choose another --out") from error
        for path in part.iterdir():
            if path.name != LOCK_FILE:
                path.rmtree() if path.is_dir() else path.unlink()
        try:
            yield part
            (part / LOCK_FILE).unlink()
            part.rename(out)
        except BaseException as error:
            shutil.rmtree(part, ignore_errors=True)
            if isinstance(error, OSError):
                raise UserError(f"cannot write {out} ({error}); make room or choose another --out") from error
            raise


class DatasetWriter:
    """Writes examples in the order they are added; `finish` makes the directory complete.

    Args:
      directory: an existing, empty folder.
      name: TFDS name of the data set; the shards are called after it.
      patch: every clip must fit it.
      shard_bytes: see `SHARD_BYTES`.
    """

    def __init__(self, directory: epath.Path, name: str, patch: Patch, shard_bytes: int = SHARD_BYTES) -> None:
        self._directory, self._name, self._patch, self._shard_bytes = directory, name, patch, shard_bytes
        self._splits: dict[str, _SplitWriter] = {}
        self._encoder: Encoder | None = None
        self._first: Record | None = None

    def add(self, split: str, record: Record) -> None:
        """Appends an example to a split.

        Raises:
          ValueError: if the clip does not fit the patch, or is not like the data set's first.
        """
        self._patch.grid(*record.video_TYXC.shape[:3])
        if self._encoder is None or self._first is None:
            self._encoder, self._first = Encoder(make_features(record)), record
        if record.video_TYXC.dtype != self._first.video_TYXC.dtype or list(record.text) != list(self._first.text):
            raise ValueError(f"record {record.id} has other dtypes or captions than the first record")
        writer = self._splits.setdefault(split, _SplitWriter(self._directory, split, self._shard_bytes))
        writer.add(self._encoder(record), record)

    def finish(self, meta: dict[str, Any]) -> None:
        """Closes the shards and writes the metadata and indexes.

        Args:
          meta: what `vdit.json` says beside format, patch, channels, dtype, captions and splits.

        Raises:
          ValueError: if nothing was added.
          UserError: if a shard cannot be read back.
        """
        if self._encoder is None or self._first is None:
            raise ValueError("no examples were added")
        infos, described = [], {}
        for split, writer in self._splits.items():
            template = naming.ShardedFileTemplate(
                data_dir=self._directory, dataset_name=self._name, split=split, filetype_suffix="array_record"
            )
            shards = writer.close(template)
            infos.append(
                splits.SplitInfo(
                    name=split,
                    shard_lengths=[shard["examples"] for shard in shards],
                    num_bytes=sum(shard["bytes"] for shard in shards),
                    filename_template=template,
                )
            )
            described[split] = {"examples": sum(shard["examples"] for shard in shards), "shards": shards}
        self._write_tfds_metadata(infos, meta)
        record = self._first
        everything = {
            "format": FORMAT,
            "source": meta["source"],
            "licence": meta["licence"],
            "patch": [self._patch.time, self._patch.height, self._patch.width],
            "channels": record.video_TYXC.shape[-1],
            "dtype": record.video_TYXC.dtype.name,
            "captions": list(record.text),
            **meta,
            "splits": described,
        }
        (self._directory / META_FILE).write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")

    def _write_tfds_metadata(self, infos: list[splits.SplitInfo], meta: dict[str, Any]) -> None:
        identity = dataset_info.DatasetIdentity(
            name=self._name,
            version=utils.Version(f"{FORMAT}.0.0"),
            data_dir=os.fspath(self._directory),
            module_name="",
        )
        assert self._encoder is not None
        info = dataset_info.DatasetInfo(
            builder=identity,
            features=self._encoder.features,
            description=f"Clips for vdit from the source {meta['source']!r}.",
            license=meta["licence"],
        )
        info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
        info.set_splits(splits.SplitDict(infos))
        info.write_to_directory(self._directory)


class _SplitWriter:
    """Shards and index of one split."""

    def __init__(self, directory: epath.Path, split: str, shard_bytes: int) -> None:
        self._directory, self._split, self._shard_bytes = directory, split, shard_bytes
        self._writer: Any = None
        self._bytes = 0
        self._lengths: list[int] = []
        self._rows: list[tuple[int, tuple[int, ...], float, list[int]]] = []

    def add(self, data: bytes, record: Record) -> None:
        if self._writer is None or self._bytes + len(data) > self._shard_bytes:
            self._begin_shard()
        with self._reporting():
            self._writer.write(data)
        self._bytes += len(data)
        self._lengths[-1] += 1
        tokens = [len(text_ME) for text_ME in record.text.values()]
        self._rows.append((record.id, record.video_TYXC.shape[:3], record.fps, tokens))

    def _temporary(self, shard: int) -> epath.Path:
        return self._directory / f"{self._split}-{shard:05d}.tmp"

    def _begin_shard(self) -> None:
        if self._writer is not None:
            self._close_shard()
        path = os.fspath(self._temporary(len(self._lengths)))
        self._writer = array_record_module.ArrayRecordWriter(path, RECORD_OPTIONS)
        self._bytes = 0
        self._lengths.append(0)

    def _close_shard(self) -> None:
        with self._reporting():
            self._writer.close()

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Makes the writer's errors (a full disk) the user's."""
        try:
            yield
        except RuntimeError as error:
            reason = str(error).split(";")[0]
            raise UserError(f"cannot write {self._directory} ({reason}); make room or choose another --out") from error

    def close(self, template: naming.ShardedFileTemplate) -> list[dict[str, Any]]:
        """Gives the shards their final names, writes the index and describes the shards."""
        self._close_shard()
        shards = []
        for i, length in enumerate(self._lengths):
            path = template.sharded_filepath(shard_index=i, num_shards=len(self._lengths))
            self._temporary(i).rename(path)
            reader = array_record_module.ArrayRecordReader(os.fspath(path))
            if not reader.ok() or reader.num_records() != length:
                raise UserError(f"{path} cannot be read back; make room on the disk or choose another --out")
            reader.close()
            shards.append({"file": path.name, "examples": length, "bytes": path.stat().length})
        ids, shapes, fps, tokens = zip(*self._rows, strict=True)
        shape_N3 = np.array(shapes, np.int32)
        index = Index(
            id=np.array(ids, np.uint64),
            frames=shape_N3[:, 0].copy(),
            height=shape_N3[:, 1].copy(),
            width=shape_N3[:, 2].copy(),
            fps=np.array(fps, np.float32),
            text_tokens=np.array(tokens, np.int32).reshape(len(ids), -1),
        )
        if len(np.unique(index.id)) != len(index):
            raise ValueError(f"ids of split {self._split} are not distinct")
        index.save(self._directory / f"index-{self._split}.npz")
        return shards
