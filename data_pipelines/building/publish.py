"""Making one data set directory of finished parts: shards under their final names, TFDS metadata, indexes, `vdit.json`.

Parts follow each other in the data set, so its examples and their order do not depend on how many parts there were.
Everything can be done again after an interruption at any point, and works on remote file systems too.
"""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from etils import epath
from tensorflow_datasets.core import dataset_info, file_adapters, naming, splits, utils

from data_pipelines.packing.index import FORMAT, META_FILE, Index
from vdit.errors import UserError
from vdit.io import remote

PART_FILE = "part.json"
"""In a part's folder: what it holds. Written last, so a part with it is finished."""


def publish(parts: Sequence[Any], out: Any, name: str) -> None:
    """Turns finished parts into a data set; `vdit.json` is written last.

    Args:
      parts: their folders, in order, paths or URLs. Shards are moved out of them.
      out: the data set's folder, path or URL.
      name: TFDS name of the data set; the shards are called after it.

    Raises:
      ValueError: if the parts hold no examples, or ids are not distinct.
      UserError: if the parts do not fit together.
    """
    abouts = [json.loads(remote.read_bytes(f"{part}/{PART_FILE}")) for part in parts]
    filled = [(part, about) for part, about in zip(parts, abouts, strict=True) if about["splits"]]
    if not filled:
        raise ValueError("no examples were added")
    features = [remote.read_bytes(f"{part}/features.json") for part, _ in filled]
    about, keys = filled[0][1], ("patch", "channels", "dtype", "captions")
    if any(other[key] != about[key] for _, other in filled for key in (*keys, "meta")) or len(set(features)) > 1:
        raise UserError(f"the parts of {out} are not alike; remove them and build again")
    infos, described = [], {}
    for split in dict.fromkeys(split for _, each in filled for split in each["splits"]):
        shards = [(part, shard) for part, each in filled for shard in each["splits"].get(split, [])]
        template = naming.ShardedFileTemplate(
            data_dir=epath.Path("."), dataset_name=name, split=split, filetype_suffix="array_record"
        )
        names = [template.sharded_filepath(shard_index=i, num_shards=len(shards)).name for i in range(len(shards))]
        _join_indexes(shards, split, out)
        for final, (part, shard) in zip(names, shards, strict=True):
            remote.move(f"{part}/{shard['file']}", f"{out}/{final}")
        stored = [
            {"file": final, "examples": shard["examples"], "bytes": shard["bytes"]}
            for final, (_, shard) in zip(names, shards, strict=True)
        ]
        infos.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[shard["examples"] for shard in stored],
                num_bytes=sum(shard["bytes"] for shard in stored),
                filename_template=template,
            )
        )
        described[split] = {"examples": sum(shard["examples"] for shard in stored), "shards": stored}
    meta = about["meta"]
    _write_tfds_metadata(infos, features[0], out, name, meta)
    everything = {
        "format": FORMAT,
        "source": meta["source"],
        "licence": meta["licence"],
        **{key: about[key] for key in keys},
        **meta,
        "splits": described,
    }
    remote.write_bytes(f"{out}/{META_FILE}", (json.dumps(everything, indent=1) + "\n").encode())


def _join_indexes(shards: list[tuple[Any, dict[str, Any]]], split: str, out: Any) -> None:
    names = [field.name for field in dataclasses.fields(Index)]
    columns: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for part, shard in shards:
        with remote.open_file(f"{part}/{shard['shapes']}", "rb") as file, np.load(file, allow_pickle=False) as arrays:
            for name in names:
                columns[name].append(arrays[name])
    index = Index(**{name: np.concatenate(arrays) for name, arrays in columns.items()})
    if len(np.unique(index.id)) != len(index):
        raise ValueError(f"ids of split {split} are not distinct")
    with _upload(out) as folder:
        index.save(folder / f"index-{split}.npz")


def _write_tfds_metadata(
    infos: list[splits.SplitInfo], features: bytes, out: Any, name: str, meta: dict[str, Any]
) -> None:
    with _upload(out) as folder:
        (folder / "features.json").write_bytes(features)
        identity = dataset_info.DatasetIdentity(
            name=name,
            version=utils.Version(f"{FORMAT}.0.0"),
            data_dir=os.fspath(folder),
            module_name="",
        )
        info = dataset_info.DatasetInfo(
            builder=identity,
            features=tfds.features.FeaturesDict.from_config(os.fspath(folder)),
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
