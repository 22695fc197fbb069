"""The shape index of a data set: all that packing needs to know of its examples, without reading a pixel.

A data set directory holds, beside its TFDS shards, `vdit.json` (its description) and `index-{split}.npz` (one entry per
example, in record order).
"""

from __future__ import annotations

import dataclasses
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from vdit.errors import UserError
from vdit.io.files import parse_json
from vdit.io.storage.retry import retry_transient
from vdit.patches import Patch

FORMAT = 1
"""Version of the directory's layout, written to `vdit.json`; readers refuse any other."""

META_FILE = "vdit.json"

DUPLICATES_FILE = "duplicates.csv"
"""In a data set whose clips were compared: the pairs that look alike."""


def embedding_file(split: str) -> str:
    """In a data set whose clips were embedded: one row for each, in record order, float16 of length 1."""
    return f"embedding-{split}.npy"


_DTYPES = {
    "id": "uint64",
    "frames": "int32",
    "height": "int32",
    "width": "int32",
    "fps": "float32",
    "text_tokens": "int32",
}
_MEASURE = "measure_"
"""Begins the names of stored measures."""

_META_KEYS = ("source", "licence", "patch", "channels", "dtype", "captions", "autoencoder", "text_encoder", "splits")
LONGEST = 300
"""Characters of an error of a library that are shown."""
REBUILD = "build the data set again, in a new folder, with `python -m data_pipelines.build --source=S --out=D`"


@dataclasses.dataclass(frozen=True)
class Index:
    """Shapes of the N examples of one split; entry i is record i.

    Attributes:
      id: (N,) uint64, distinct.
      frames, height, width: (N,) int32, extent of the stored array (pixels or latents).
      fps: (N,) float32, frames per second of the stored array.
      text_tokens: (N, K) int32, feature rows of each of the K caption kinds.
      measures: what the clips are like, (N,) float32 by name, such as "motion"; NaN where it was not measured.
    """

    id: np.ndarray
    frames: np.ndarray
    height: np.ndarray
    width: np.ndarray
    fps: np.ndarray
    text_tokens: np.ndarray
    measures: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.id)
        for name, array in self.measures.items():
            if array.dtype != np.float32 or array.shape != (count,):
                raise ValueError(f"measure {name} is {array.dtype}{array.shape}, not float32 with {count} entries")
        for name, dtype in _DTYPES.items():
            array, ndim = getattr(self, name), 2 if name == "text_tokens" else 1
            if array.dtype != dtype or array.ndim != ndim or len(array) != count:
                raise ValueError(
                    f"{name} is {array.dtype}{array.shape}, not {dtype} with {ndim} axes and {count} entries"
                )

    def __len__(self) -> int:
        return len(self.id)

    def grid_N3(self, patch: Patch) -> np.ndarray:
        """The patch grid (t, y, x) of every example, (N, 3) int32."""
        return np.stack(
            [1 + (self.frames - 1) // patch.time, self.height // patch.height, self.width // patch.width], axis=-1
        ).astype(np.int32)

    def arrays(self) -> dict[str, Any]:
        """The arrays by name, as they are stored; `index_of` takes them back."""
        measures = {_MEASURE + name: array for name, array in self.measures.items()}
        return {name: getattr(self, name) for name in _DTYPES} | measures

    def columns(self) -> dict[str, np.ndarray]:
        """What a condition on examples may name: (N,) by name. `seconds` and `aspect` (width / height) are computed."""
        shapes = {name: getattr(self, name) for name in ("frames", "height", "width", "fps")}
        return {
            **shapes,
            "seconds": self.frames / self.fps,
            "aspect": self.width / self.height,
            **self.measures,
        }

    def save(self, path: epath.PathLike) -> None:
        """Writes the arrays as an uncompressed npz whose bytes depend on nothing but the arrays."""
        with epath.Path(path).open("wb") as file:
            np.savez(file, **self.arrays())


def index_of(arrays: Mapping[str, Any]) -> Index:
    """The index whose `arrays` these are."""
    measures = {name.removeprefix(_MEASURE): arrays[name] for name in arrays if name.startswith(_MEASURE)}
    return Index(**{name: arrays[name] for name in _DTYPES}, measures=measures)


def join_indexes(indexes: Sequence[Index]) -> Index:
    """One index of the examples of several, in order; measures that one of them lacks are NaN for it."""
    names = dict.fromkeys(name for index in indexes for name in index.measures)

    def column(index: Index, name: str) -> np.ndarray:
        return index.measures.get(name, np.full(len(index), np.nan, np.float32))

    return Index(
        **{name: np.concatenate([getattr(index, name) for index in indexes]) for name in _DTYPES},
        measures={name: np.concatenate([column(index, name) for index in indexes]) for name in names},
    )


def load_meta(directory: epath.PathLike) -> dict[str, Any]:
    """Reads and checks `vdit.json`.

    Raises:
      UserError: if it is missing, unreadable, incomplete, or of another format version.
    """
    path = epath.Path(directory) / META_FILE
    if not epath.Path(directory).is_dir():
        raise UserError(
            f"data set {directory} does not exist; make it with "
            f"`python -m data_pipelines.build --source=physics --world=captioned --patch=2,4,4 --out={directory}`, "
            "or from your own clips with --source=FOLDER"
        )
    if not path.is_file():
        raise UserError(
            f"{path} is missing: {directory} is not a data set of vdit; if it holds videos, build one from them with "
            f"`python -m data_pipelines.build --source={directory} --out={directory}-built`"
        )
    meta: Any = parse_json(path.read_bytes(), path, object, mend=REBUILD)
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        found = meta.get("format") if isinstance(meta, dict) else None
        raise UserError(f"{path} has format {found!r}, this version reads {FORMAT}; {REBUILD}")
    if missing := [key for key in _META_KEYS if key not in meta]:
        raise UserError(f"{path} lacks {', '.join(missing)}; {REBUILD}")
    try:
        _check_meta(meta)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({type(error).__name__}: {_line(error)}); {REBUILD}") from error
    return meta


def _check_meta(meta: dict[str, Any]) -> None:
    """Raises ValueError or the like if what is read on trust later is not of the right form."""
    if len(patch := meta["patch"]) != 3 or not all(isinstance(side, int) and side > 0 for side in patch):
        raise ValueError(f"patch={patch}")
    np.dtype(meta["dtype"])
    for kind in ("autoencoder", "text_encoder"):
        if not isinstance(meta[kind]["name"], str):
            raise ValueError(f"{kind}={meta[kind]}")
    if not all(isinstance(kind, str) for kind in meta["captions"]) or meta["text_encoder"].get("width", 0) < 0:
        raise ValueError(f"captions={meta['captions']}")
    for split, info in meta["splits"].items():
        counts = [info["examples"], *(shard[key] for shard in info["shards"] for key in ("examples", "bytes"))]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(f"split {split} has {counts}")
        if any(not isinstance(shard.get("signature", ""), str) for shard in info["shards"]):
            raise ValueError(f"split {split} has a signature that is no text")
        for name in (split, *(shard["file"] for shard in info["shards"])):
            if not is_plain(name):
                raise ValueError(f"{name!r} is no file of its folder")


def is_plain(name: object) -> bool:
    """Whether a name read from a data set is that of a file in a folder, and not a path that leads elsewhere."""
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}


def load_index(directory: epath.PathLike, split: str) -> Index:
    """Reads and checks the index of one split.

    Raises:
      UserError: if the split is unknown, or its index is missing, damaged or at odds with `vdit.json`.
    """
    meta = load_meta(directory)
    if split not in meta["splits"]:
        raise UserError(f"data set {directory} has no split {split!r}; it has {', '.join(meta['splits'])}")
    path = epath.Path(directory) / f"index-{split}.npz"
    if not path.is_file():
        raise UserError(f"{path} is missing; {REBUILD}")

    def read() -> Index:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return index_of(arrays)

    try:
        index = retry_transient(read, path)
        _check(index, meta, split)
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UserError(f"{path} is damaged ({_line(error)}); {REBUILD}") from error
    return index


def _check(index: Index, meta: dict[str, Any], split: str) -> None:
    """Raises ValueError if the index cannot belong to this data set."""
    if len(index) != meta["splits"][split]["examples"]:
        raise ValueError(f"{len(index)} entries for {meta['splits'][split]['examples']} examples")
    if index.text_tokens.shape[1] != len(meta["captions"]):
        raise ValueError(f"{index.text_tokens.shape[1]} caption kinds for {len(meta['captions'])} in {META_FILE}")
    time, height, width = meta["patch"]
    fit = ((index.frames - 1) % time == 0) & (index.height % height == 0) & (index.width % width == 0)
    positive = (index.frames > 0) & (index.height > 0) & (index.width > 0) & (index.fps > 0)
    positive &= (index.text_tokens >= 0).all(axis=1)
    if not (fit & positive).all():
        raise ValueError(f"entry {int(np.argmin(fit & positive))} does not fit the patch {meta['patch']}")
    if len(np.unique(index.id)) != len(index):
        raise ValueError("ids are not distinct")


def _line(error: Exception) -> str:
    """What an error says, in one line that can be printed; some hold all bytes of the file."""
    said = " ".join(str(error).split())
    return "".join(c if c.isprintable() else "?" for c in said[:LONGEST]) or type(error).__name__
