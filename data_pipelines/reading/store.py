"""Reading a data set directory, by split and number, in any order."""

from __future__ import annotations

import bisect
import functools
import hashlib
import itertools
import json
import os
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from etils import epath

from data_pipelines.packing.index import META_FILE, REBUILD, Index, is_plain, load_index, load_meta
from data_pipelines.reading.records import FastDecoder
from vdit.batch import Example
from vdit.errors import StorageError, UserError
from vdit.io.files import cache_dir, is_remote
from vdit.io.storage import remote
from vdit.io.storage.retry import is_transient, retry_transient
from vdit.io.storage.signature import file_signature
from vdit.patches import Patch, patchify_apart

FINGERPRINTED = ("patch", "channels", "dtype", "captions", "autoencoder", "text_encoder", "splits")
"""Keys of `vdit.json` that say what a run reads."""

SHAPES = ("id", "frames", "height", "width", "fps", "text_tokens")
"""Arrays of an index, beside its measures."""


class Window(NamedTuple):
    """A run of frames of one clip, with one caption's features.

    Attributes:
      id: identity of the clip.
      fps: frames per second.
      video_TYXC: the frames, read-only.
      text_ME: float16 features of the caption; no rows if none was chosen.
    """

    id: int
    fps: float
    video_TYXC: np.ndarray
    text_ME: np.ndarray


class Dataset:
    """A data set. It may be shared by threads and sent to processes.

    Args:
      path: the directory that `data_pipelines.build` wrote, or its URL. What is read of a data set in a bucket is
        copied to the cache of this machine, a shard when its first record is read.

    Attributes:
      path: the directory on this machine.
      meta: contents of `vdit.json`.
      patch: extent of a patch that every clip fits.

    Raises:
      UserError: if the directory is not a whole data set of this version.
    """

    def __init__(self, path: epath.PathLike) -> None:
        origin = os.fspath(path).rstrip("/") if is_remote(path) else ""
        self.path = epath.Path(_stage(origin) if origin else path)
        self.meta = load_meta(self.path)
        self.patch = Patch(*self.meta["patch"])
        sizes = dict(remote.walk(origin or self.path))
        splits = self.meta["splits"].items()
        self._shards = {split: _Shards(self.path, info["shards"], sizes, origin) for split, info in splits}
        self._decode = FastDecoder(self.meta["dtype"], self.meta["text_encoder"]["width"])
        self._features: tfds.features.FeaturesDict | None = None
        self._indexes: dict[str, Index] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_indexes": {}}

    @property
    def splits(self) -> tuple[str, ...]:
        return tuple(self._shards)

    def index(self, split: str) -> Index:
        """Shapes of the examples of a split.

        Raises:
          UserError: if the split or its index is missing, or damaged.
        """
        if split not in self._indexes:
            self._indexes[split] = load_index(self.path, split)
        return self._indexes[split]

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return self._split(split).size

    def frames(self, split: str) -> np.ndarray:
        """Frames of every example of a split, (N,)."""
        return self.index(split).frames

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hex digits that differ where a run would read other examples: other shapes, ids, or bytes in its shards.

        Path, licence and the like do not count. Of the bytes it takes the word of `vdit.json`, which is checked where
        a shard is first opened.
        """
        digest = hashlib.sha256(json.dumps({key: self.meta[key] for key in FINGERPRINTED}, sort_keys=True).encode())
        for split in self.splits:
            index = self.index(split)
            arrays = {name: getattr(index, name) for name in SHAPES} | index.measures
            for name in sorted(arrays):
                digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()[:16]

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """The data sets of a mixture; this is one of one."""
        return (self,)

    def parts(self, split: str) -> tuple[int, ...]:
        """Number of examples of each of `datasets`."""
        return (self.size(split),)

    def example(self, split: str, i: int) -> dict[str, Any]:
        """Everything stored of example `i`: arrays by feature name, text as str."""
        if self._features is None:
            self._features = tfds.features.FeaturesDict.from_config(os.fspath(self.path))
        example = self._features.deserialize_example_np(self._split(split).read(i))
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in example.items()}

    def read_clip(
        self, split: str, i: int, start_frame: int = 0, frames: int = 0, caption: str | None = None
    ) -> Window:
        """Reads a run of frames of example `i`.

        Args:
          split, i: which example.
          start_frame: first frame.
          frames: number of frames; 0 = to the end.
          caption: kind of caption whose features are read; None = none.

        Raises:
          ValueError: if the clip has not those frames, or no such caption.
          UserError: if the record is damaged, or not the one that the index says.
        """
        if caption is not None and caption not in self.meta["captions"]:
            raise ValueError(f"no captions of kind {caption!r}; there are {', '.join(self.meta['captions'])}")
        identity, fps, video_TYXC, text_ME = self._decode(self._split(split).read(i), caption)
        index = self.index(split)
        wanted = (index.id[i], index.frames[i], index.height[i], index.width[i])
        if (identity, *video_TYXC.shape[:3]) != wanted:
            raise UserError(
                f"{self._split(split).where(i)} holds id {identity} of {video_TYXC.shape[:3]}, where index-{split}.npz "
                f"has id {wanted[0]} of {tuple(map(int, wanted[1:]))}: not of the same build; {REBUILD}"
            )
        end = start_frame + frames if frames else len(video_TYXC)
        if not 0 <= start_frame < end <= len(video_TYXC):
            raise ValueError(f"example {i} of {split} has {len(video_TYXC)} frames, not {start_frame}..{end}")
        return Window(identity, fps, video_TYXC[start_frame:end], text_ME)

    def read_example(
        self, split: str, i: int, start_frame: int = 0, frames: int = 0, caption: str | None = None
    ) -> Example:
        """Like `read_clip`, cut into patches."""
        window = self.read_clip(split, i, start_frame, frames, caption)
        grid = self.patch.grid(*window.video_TYXC.shape[:3])
        return Example(
            window.id,
            patchify_apart(window.video_TYXC, self.patch, self.meta["autoencoder"].get("condition", 0)),
            grid,
            window.fps,
            window.text_ME,
        )

    def _split(self, split: str) -> _Shards:
        if split not in self._shards:
            raise UserError(f"data set {self.path} has no split {split!r}; it has {', '.join(self._shards)}")
        return self._shards[split]


def _stage(url: str) -> Path:
    """Copies all of a data set but its shards to the cache; its folder there."""
    try:
        about = remote.read_bytes(f"{url}/{META_FILE}")
    except FileNotFoundError as error:
        raise UserError(f"{url}/{META_FILE} does not exist: not a data set of vdit, or an unfinished build") from error
    folder = cache_dir() / "datasets" / hashlib.sha256(url.encode() + about).hexdigest()[:16]
    for name, _ in remote.walk(url):
        if not all(map(is_plain, name.split("/"))):
            raise UserError(f"{url} holds {name!r}, which would be written elsewhere; do not trust it")
        if ".array_record-" not in name and not (folder / name).exists():
            remote.fetch(f"{url}/{name}", folder / name)
    return folder


class _Shards:
    """Random access to the records of one split; files are opened, and staged, when first needed."""

    def __init__(self, directory: epath.Path, shards: list[dict[str, Any]], sizes: dict[str, int], origin: str) -> None:
        self._origin = origin
        self._paths = [directory / shard["file"] for shard in shards]
        self._lengths = [shard["examples"] for shard in shards]
        self._signatures = [shard.get("signature", "") for shard in shards]  # older data sets have none
        if not shards:
            raise UserError(f"{directory / META_FILE} names no shards of a split: damaged; {REBUILD}")
        self._ends = list(itertools.accumulate(self._lengths))
        self.size = self._ends[-1]
        for path, shard in zip(self._paths, shards, strict=True):
            if (size := sizes.get(path.name)) is None:
                raise UserError(f"{path} is missing; {REBUILD}")
            if size != shard["bytes"]:
                raise UserError(f"{path} has {size} bytes instead of {shard['bytes']}: damaged; {REBUILD}")
        self._open_all()

    def _open_all(self) -> None:
        self._readers: list[Any] = [None] * len(self._paths)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_readers", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open_all()

    def read(self, i: int) -> bytes:
        """The bytes of record `i`."""
        shard, local = self._place(i)
        path = self._paths[shard]
        try:
            return retry_transient(lambda: self._read(shard, local), path)
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            if is_transient(error):
                raise StorageError(
                    f"{path} cannot be read at record {local} ({reason}); is its storage there?"
                ) from error
            raise UserError(f"{path} is damaged at record {local} ({reason}); {REBUILD}") from error

    def where(self, i: int) -> str:
        """Which record of which file `i` is."""
        shard, local = self._place(i)
        return f"record {local} of {self._paths[shard]}"

    def _place(self, i: int) -> tuple[int, int]:
        """(shard, record in it)."""
        if not 0 <= i < self.size:
            raise IndexError(f"record {i} of {self.size}")
        shard = bisect.bisect_right(self._ends, i)
        return shard, i - (self._ends[shard] - self._lengths[shard])

    def _read(self, shard: int, local: int) -> bytes:
        reader = self._reader(shard)
        try:
            return reader.read([local])[0]
        except RuntimeError:
            with self._lock:  # a reader that has failed stays so
                if self._readers[shard] is reader:
                    self._readers[shard] = None
            raise

    def _reader(self, shard: int) -> Any:
        with self._lock:
            if self._readers[shard] is None:
                path = self._paths[shard]
                if self._origin and not path.exists():
                    remote.fetch(f"{self._origin}/{path.name}", Path(path))
                if (wanted := self._signatures[shard]) and (found := file_signature(path)) != wanted:
                    raise UserError(
                        f"{path} has changed since it was built (signature {found}, {wanted} in {META_FILE}): damaged, "
                        f"or of another build; {REBUILD}"
                    )
                # Records are read one by one in any order: reading ahead would be wasted.
                reader = array_record_module.ArrayRecordReader(os.fspath(path), "readahead_buffer_size:0")
                if not reader.ok() or reader.num_records() != self._lengths[shard]:
                    raise UserError(f"{path} does not hold {self._lengths[shard]} records: damaged; {REBUILD}")
                self._readers[shard] = reader
            return self._readers[shard]
