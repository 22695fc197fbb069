"""Tensors of PyTorch's .pth files, without PyTorch and without running anything the file says.

Until version 1.6 such a file was five pickles and then raw storages; since then it is a zip archive of one pickle and a
member for each storage. The pickles are read with every global refused but the four that a state dict needs, and those
stand for functions of this module that only note what they are given.
"""

from __future__ import annotations

import collections
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from vdit.errors import UserError
from vdit.io.weights.safetensors import check_finite, check_tensors, read_tensors

MAGIC = 0x1950A86A20F9469CFC6C
ZIP = b"PK\x03\x04"
DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


class _Storage(NamedTuple):
    key: str
    dtype: type


class _View(NamedTuple):
    """A tensor: a strided view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> _View:
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, stride)))


class _Reader(pickle.Unpickler):
    """An unpickler that knows a state dict's globals only."""

    def find_class(self, module: str, name: str) -> Any:
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _view,
            **{("torch", kind): dtype for kind, dtype in DTYPES.items()},
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a state dict")
        return known[module, name]

    def persistent_load(self, saved: Any) -> _Storage:
        _, dtype, key, *_ = saved
        return _Storage(str(key), dtype)


def read_weights(
    path: str | os.PathLike[str], shapes: Mapping[str, tuple[int, ...]], unused: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """Exactly the tensors that a model has, from a .safetensors or a .pth file; see `safetensors.open_tensors`."""
    if Path(path).suffix == ".safetensors":
        return read_tensors(path, shapes, unused)
    held = read_pth(path)
    check_tensors(path, {name: tensor.shape for name, tensor in held.items()}, shapes, unused)
    for name in shapes:
        check_finite(path, name, held[name])
    return {name: held[name] for name in shapes}


def read_pth(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name, in its order.

    Raises:
      UserError: if the file is missing, or not a state dict.
    """
    try:
        with open(path, "rb") as file:
            if file.read(4) == ZIP:
                return _read_zip(file)
            file.seek(0)
            return _read(file)
    except Exception as error:  # a pickle or archive that is damaged, or made to harm, can raise any
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is not a readable .pth state dict ({reason})") from error


def _read_zip(file: IO[bytes]) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        if any(member.flag_bits & 1 for member in archive.infolist()):
            raise ValueError("it is encrypted")
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its members are compressed, as PyTorch's never are")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise ValueError("it was written by a big-endian machine")
        with archive.open(pickled) as inner:
            views = _Reader(inner).load()
        dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
        storages = {key: np.frombuffer(archive.read(f"{folder}data/{key}"), dtype) for key, dtype in dtypes.items()}
    return {name: _strided(storages[view.storage.key], view) for name, view in views.items()}


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    if _Reader(file).load() != MAGIC:
        raise ValueError("it does not begin with the format's number")
    _Reader(file).load()  # the version of the format
    if not _Reader(file).load()["little_endian"]:
        raise ValueError("it was written by a big-endian machine")
    views, keys = _Reader(file).load(), _Reader(file).load()
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", file.read(8))
        size = count * np.dtype(dtypes[key]).itemsize
        if not 0 <= size <= os.fstat(file.fileno()).st_size - file.tell():
            raise ValueError("it ends too early")
        data = file.read(size)
        storages[key] = np.frombuffer(data, dtypes[key])
    return {name: _strided(storages[view.storage.key], view) for name, view in views.items()}


def _strided(storage: np.ndarray, view: _View) -> np.ndarray:
    """A contiguous copy of a view, which must lie within its storage and be no larger."""
    last = view.offset + sum((size - 1) * step for size, step in zip(view.shape, view.stride, strict=True))
    if min((view.offset, *view.shape, *view.stride), default=0) < 0 or last >= len(storage):
        raise ValueError("a tensor reaches past its storage")
    if math.prod(view.shape) > len(storage):  # as with a stride of 0
        raise ValueError("a tensor is larger than its storage")
    strides = [step * storage.itemsize for step in view.stride]
    return np.lib.stride_tricks.as_strided(storage[view.offset :], view.shape, strides).copy()
