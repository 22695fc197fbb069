"""Making one data set of finished shards: TFDS metadata, indexes, and `vdit.json`, which is written last.

Shards stay as they are. Everything can be done again after an interruption at any point, and works on remote file
systems too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits, utils

from data_pipelines.building.curation.duplicates import describe_duplicates, mark_duplicates
from data_pipelines.building.writing.shard import RecordKind, Shard, features_of
from data_pipelines.packing.index import DUPLICATES_FILE, FORMAT, META_FILE, Index, embedding_file, join_indexes
from vdit.errors import UserError
from vdit.io.storage import remote
from vdit.patches import Patch


def publish(shards: Iterable[tuple[str, Shard]], out: Any, name: str, patch: Patch, meta: dict[str, Any]) -> str:
    """Completes a data set.

    Args:
      shards: (split, shard) in order; those of a split are all that TFDS expects there. They lie in `out`.
      out: the data set's folder, path or URL.
      name: TFDS name of the data set; the shards are called after it.
      patch: extent of a patch in what is stored.
      meta: what `vdit.json` says beside format, patch, channels, dtype, captions and splits.

    Returns:
      what is to be said of near duplicates; empty if there are none.

    Raises:
      ValueError: if the shards hold no examples, or ids are not distinct.
      UserError: if the shards do not fit together.
    """
    kind: RecordKind | None = None
    described: dict[str, list[dict[str, Any]]] = {}
    indexes: dict[str, list[Index]] = {}
    hashes: dict[str, list[np.ndarray]] = {}
    embeddings: dict[str, list[np.ndarray]] = {}
    for split, shard in shards:
        kind = kind or shard.kind
        if shard.kind not in (None, kind):
            raise UserError(f"{shard.file} holds other kinds of records than the shards before it: {shard.kind}")
        about = {name: getattr(shard, name) for name in ("file", "examples", "bytes", "signature")}
        described.setdefault(split, []).append(about)
        indexes.setdefault(split, []).extend([shard.index] if shard.index else [])
        hashes.setdefault(split, []).extend([] if shard.hash_NB is None else [shard.hash_NB])
        embeddings.setdefault(split, []).extend([] if shard.embedding_NE is None else [shard.embedding_NE])
    if kind is None:
        raise ValueError("no examples were added")
    for split in [split for split, parts in indexes.items() if not parts]:
        for empty in described.pop(split):
            remote.remove(f"{out}/{empty['file']}")
    joined = {split: join_indexes(indexes[split]) for split in described}
    for split, index in joined.items():
        if len(np.unique(index.id)) != len(index):
            raise ValueError(f"ids of split {split} are not distinct")
    with _upload(out) as folder:
        embedded = {split: np.concatenate(embeddings[split]) for split in joined if embeddings[split]}
        if all(hashes[split] for split in joined):
            hashed = {split: np.concatenate(hashes[split]) for split in joined}
            table, joined = mark_duplicates(joined, hashed, embedded)
            (folder / DUPLICATES_FILE).write_text(table, encoding="utf-8")
        for split, embedding_NE in embedded.items():
            np.save(folder / embedding_file(split), embedding_NE)
        for split, index in joined.items():
            index.save(folder / f"index-{split}.npz")
    _write_tfds_metadata(described, kind, out, name, meta)
    everything = {
        "format": FORMAT,
        "source": meta["source"],
        "licence": meta["licence"],
        "patch": list(dataclasses.astuple(patch)),
        "channels": kind.channels,
        "dtype": kind.dtype,
        "captions": list(kind.captions),
        **meta,
        "splits": {
            split: {"examples": sum(shard["examples"] for shard in parts), "shards": parts}
            for split, parts in described.items()
        },
    }
    remote.write_bytes(f"{out}/{META_FILE}", (json.dumps(everything, indent=1) + "\n").encode())
    return describe_duplicates(joined)


def _write_tfds_metadata(
    described: dict[str, list[dict[str, Any]]], kind: RecordKind, out: Any, name: str, meta: dict[str, Any]
) -> None:
    infos = [
        splits.SplitInfo(
            name=split,
            shard_lengths=[shard["examples"] for shard in parts],
            num_bytes=sum(shard["bytes"] for shard in parts),
            filename_template=naming.ShardedFileTemplate(
                data_dir=epath.Path("."), dataset_name=name, split=split, filetype_suffix="array_record"
            ),
        )
        for split, parts in described.items()
    ]
    with _upload(out) as folder:
        identity = dataset_info.DatasetIdentity(
            name=name,
            version=utils.Version(f"{FORMAT}.0.0"),
            data_dir=os.fspath(folder),
            module_name="",
        )
        info = dataset_info.DatasetInfo(
            builder=identity,
            features=features_of(kind),
            description=f"Clips for vdit from the source {meta['source']!r}.",
            license=meta["licence"],
        )
        info.set_file_format(file_adapters.FileFormat.ARRAY_RECORD)
        info.set_splits(splits.SplitDict(infos))
        info.write_to_directory(epath.Path(folder))


class _upload:
    """A local folder whose files go to `out` at the end."""

    def __init__(self, out: Any) -> None:
        self._out, self._folder = out, tempfile.TemporaryDirectory(prefix="vdit-")

    def __enter__(self) -> Path:
        return Path(self._folder.name)

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            for path in sorted(Path(self._folder.name).iterdir()):
                remote.write_bytes(f"{self._out}/{path.name}", path.read_bytes())
        self._folder.cleanup()
