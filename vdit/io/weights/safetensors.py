"""Weights from safetensors files, checked against what the model expects. Nothing is ever unpickled."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 (makes "bfloat16" a name that NumPy, and so safetensors, knows)
import numpy as np
from safetensors import SafetensorError, safe_open

from vdit.errors import UserError

MEND = "give weights of the model that is configured"

DTYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL")
"""Those that are read. Weights of 8 or fewer bits need scales, of which each project has its own."""


def weight_files(path: str | os.PathLike[str]) -> list[Path]:
    """The safetensors files of a model: the file itself, those that a folder's index names, or all of the folder.

    Raises:
      UserError: if there is none, an index cannot be read, or it names a file outside the folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        return [folder]
    indices = sorted(folder.glob("*.safetensors.index.json"))
    if not indices:
        files = sorted(folder.glob("*.safetensors"))
    else:
        try:
            names = set(json.loads(indices[0].read_text(encoding="utf-8"))["weight_map"].values())
            if any(Path(name).name != name for name in names):
                raise ValueError("a file lies outside the folder")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UserError(f"{indices[0]} is not an index of weights ({error}); fetch it again") from error
        files = sorted(folder / name for name in names)
    if not files:
        raise UserError(f"{folder} holds no .safetensors file; give a folder or file of weights")
    return files


@contextlib.contextmanager
def open_tensors(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    unused: Collection[str] = (),
) -> Iterator[Callable[[str], np.ndarray]]:
    """Opens weights of which exactly the tensors of a model may be read, one by one.

    Args:
      path: a .safetensors file, or a folder of them.
      shapes: name in the files -> shape, of every tensor the model needs.
      unused: names that the files may hold besides and the model has no use for.

    Yields:
      name -> array, in the dtype of the file.

    Raises:
      UserError: a file is missing or damaged; a tensor is missing, unexpected, of another shape or of a dtype that is
        not read; when it is read, one that holds values that are not finite.
    """
    with contextlib.ExitStack() as stack:
        held: dict[str, tuple[Path, Any, Any]] = {}
        for file in weight_files(path):
            with _reading(file):
                reader = stack.enter_context(safe_open(file, "np"))
                for name in reader.keys():  # noqa: SIM118
                    held[name] = file, reader, reader.get_slice(name)
        check_tensors(path, {name: tuple(part.get_shape()) for name, (_, _, part) in held.items()}, shapes, unused)
        for name in shapes:
            if (dtype := held[name][2].get_dtype()) not in DTYPES:
                raise UserError(f"{path}: tensor {name} is {dtype}, which is not read; give weights of 16 or 32 bits")

        def get(name: str) -> np.ndarray:
            file, reader, _ = held[name]
            with _reading(file):
                array = reader.get_tensor(name)
            check_finite(file, name, array)
            return array

        yield get


def read_tensors(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    unused: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Reads exactly the tensors that a model has, in the order of `shapes`; see `open_tensors`."""
    with open_tensors(path, shapes, unused) as get:
        return {name: get(name) for name in shapes}


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Makes the errors of reading a file the user's."""
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist; give the path of a safetensors file") from error
    except (OSError, SafetensorError) as error:
        where = f"it ends within tensor {name}" if (name := _cut_tensor(file)) else str(error)
        raise UserError(f"{file} is not a readable safetensors file ({where}); fetch it again") from error


def _cut_tensor(file: Path) -> str:
    """The first tensor that a truncated file does not hold whole; "" if there is none, or the header is cut.

    The layout is 8 bytes of length, a JSON header with the offsets of every tensor, and their bytes.
    """
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(file.stat().st_size, 100 << 20):  # the format's own limit
                return ""
            header = json.loads(stream.read(length))
        ends = {name: 8 + length + about["data_offsets"][1] for name, about in header.items() if name != "__metadata__"}
        return min((end, name) for name, end in ends.items() if end > file.stat().st_size)[1]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        return ""


def check_tensors(
    path: str | os.PathLike[str],
    held: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    unused: Collection[str] = (),
) -> None:
    """Raises UserError, naming the first tensor that is missing, of another shape, or unexpected."""
    for name, shape in shapes.items():
        if name not in held:
            raise UserError(f"{path} has no tensor {name} {list(shape)}; {MEND}")
        if held[name] != shape:
            raise UserError(f"{path}: tensor {name} is {list(held[name])}, the model's is {list(shape)}; {MEND}")
    for name in held:
        if name not in shapes and name not in unused:
            raise UserError(f"{path} holds a tensor {name} {list(held[name])} that the model does not have; {MEND}")


def check_finite(path: str | os.PathLike[str], name: str, array: np.ndarray) -> None:
    """Raises UserError if a tensor holds NaN or infinities, of which nothing useful can be made."""
    if array.dtype.kind not in "biu" and not (finite := np.isfinite(array)).all():
        count = int(finite.size - finite.sum())
        raise UserError(
            f"{path}: {count:,} of the {finite.size:,} values of tensor {name} are NaN or infinite; give other weights"
        )
