"""Writing a whole data set in one go, on this machine."""

from __future__ import annotations

import dataclasses
from typing import Any

from etils import epath

from data_pipelines.building.jobs.jobs import shard_name
from data_pipelines.building.writing.publish import publish
from data_pipelines.building.writing.shard import Shard, ShardWriter
from data_pipelines.reading.records import Record
from vdit.patches import Patch

SHARD_BYTES = 128 << 20
"""Serialised size at which a new shard is begun."""


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
        self._open: dict[str, ShardWriter] = {}
        self._closed: dict[str, list[Shard]] = {}

    def add(self, split: str, record: Record) -> None:
        """Appends an example to a split.

        Raises:
          ValueError: if the clip does not fit the patch, or is not like the first of its shard.
          UserError: if it cannot be written.
        """
        if split not in self._open:
            shards = self._closed.setdefault(split, [])
            self._open[split] = ShardWriter(self._directory / f"{split}-{len(shards):05d}.tmp", self._patch)
        self._open[split].add(record)
        if self._open[split].bytes >= self._shard_bytes:
            self._close(split)

    def finish(self, meta: dict[str, Any]) -> None:
        """Closes the shards and writes the metadata and indexes.

        Args:
          meta: what `vdit.json` says beside format, patch, channels, dtype, captions and splits.

        Raises:
          ValueError: if nothing was added, or ids are not distinct.
          UserError: if a shard cannot be read back, or they are not alike.
        """
        for split in list(self._open):
            self._close(split)
        named = [(split, self._named(split, i)) for split, shards in self._closed.items() for i in range(len(shards))]
        publish(named, self._directory, self._name, self._patch, meta)

    def _close(self, split: str) -> None:
        shards = self._closed[split]
        shards.append(self._open.pop(split).close(f"{split}-{len(shards):05d}.tmp"))

    def _named(self, split: str, number: int) -> Shard:
        """A shard of which it is now known of how many it is."""
        shard = self._closed[split][number]
        name = shard_name(self._name, split, number, len(self._closed[split]))
        (self._directory / shard.file).rename(self._directory / name)
        return dataclasses.replace(shard, file=name)
