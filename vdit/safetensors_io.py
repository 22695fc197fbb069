"""Weights from safetensors files, checked against what the model expects. Nothing is ever unpickled."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

import numpy as np
from safetensors import SafetensorError, safe_open

from vdit.config import UserError


def read_tensors(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    unused: Collection[str] = (),
) -> dict[str, np.ndarray]:
    """Reads exactly the tensors that a model has.

    Args:
      path: a .safetensors file.
      shapes: name in the file -> shape, of every tensor the model needs.
      unused: names that the file may hold besides and the model has no use for.

    Returns:
      Name -> array, in the dtype of the file, in the order of `shapes`.

    Raises:
      UserError: the file is missing or damaged, or a tensor is missing, unexpected or of another shape.
    """
    try:
        with safe_open(path, "np") as file:
            held = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            _check(path, held, shapes, unused)
            return {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist; give the path of a safetensors file") from error
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); fetch it again") from error


def _check(
    path: str | os.PathLike[str],
    held: Mapping[str, tuple[int, ...]],
    shapes: Mapping[str, tuple[int, ...]],
    unused: Collection[str],
) -> None:
    mend = "give weights of the model that is configured"
    for name, shape in shapes.items():
        if name not in held:
            raise UserError(f"{path} has no tensor {name} {list(shape)}; {mend}")
        if held[name] != shape:
            raise UserError(f"{path}: tensor {name} is {list(held[name])}, the model's is {list(shape)}; {mend}")
    for name in held:
        if name not in shapes and name not in unused:
            raise UserError(f"{path} holds a tensor {name} {list(held[name])} that the model does not have; {mend}")
