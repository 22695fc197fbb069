"""Adapters in safetensors, named as diffusers and PEFT name them: NAME.lora_A.weight and NAME.lora_B.weight.

lora_A is (rank, inputs), lora_B (outputs, rank), of every linear layer apart; ours are stacked over blocks and hold
queries, keys and values in one. Names of Wan's layers are those of diffusers, which loads the file with
`pipeline.load_lora_weights`; those of our own network begin with "blocks." too.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vdit.config import ModelConfig
from vdit.errors import UserError
from vdit.io.weights.safetensors import check_finite
from vdit.lora_config import LoraConfig
from vdit.models.wan.wan_weights import PublishedWeight, block_matrices

FILE = "pytorch_lora_weights.safetensors"
"""Name of a file in a folder, as diffusers writes and looks for it."""

PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The same of PEFT, and what lies beside it."""

PREFIX = "transformer."
PREFIXES = (PREFIX, "base_model.model.", "diffusion_model.", "")
"""Before the names of layers: of a pipeline's transformer, and what others write."""

METADATA = "lora_adapter_metadata"
"""Key of a file's header under which diffusers keeps rank and alpha."""

Adapters = dict[str, tuple[np.ndarray, np.ndarray]]
"""Matrix of a block -> (A, B), stacked over blocks; the scale is in B."""


def layers_of(model: ModelConfig) -> dict[str, PublishedWeight]:
    """Matrices of a block of ours and the linear layers that are stacked to make them."""
    if model.family == "wan":
        return block_matrices(model)
    d, f, hk = (model.width,), (model.feed_forward_width,), (model.heads, model.head_width)
    return {
        "qkv": PublishedWeight(tuple(f"blocks.{{}}.to_{letter}.weight" for letter in "qkv"), d, hk),
        "out": PublishedWeight(("blocks.{}.to_out.weight",), hk, d),
        "up": PublishedWeight(("blocks.{}.up.weight",), d, f),
        "down": PublishedWeight(("blocks.{}.down.weight",), f, d),
    }


def halves(weight: PublishedWeight, rank: int) -> tuple[PublishedWeight, PublishedWeight]:
    """How A and B of adapters at a matrix are stacked: the rank takes the place of its outputs, of its inputs."""
    return (
        dataclasses.replace(weight, outputs=(rank,), rotated=0),
        dataclasses.replace(weight, inputs=(rank,)),
    )


def write_lora(
    folder: Path, adapters: Mapping[str, tuple[np.ndarray, np.ndarray]], lora: LoraConfig, model: ModelConfig
) -> None:
    """Writes adapters into a folder, for diffusers (`FILE`); the scale is multiplied into lora_B, so alpha is the rank.

    Args:
      folder: where to.
      adapters: matrix of a block -> (A, B), stacked over blocks.
      lora, model: of the run.
    """
    tensors, layers = {}, layers_of(model)
    for name, (a, b) in adapters.items():
        weight_a, weight_b = halves(layers[name], lora.rank)
        for block in range(len(a)):
            for part, half, array in (("A", weight_a, a[block]), ("B", weight_b, lora.scale * b[block])):
                for layer, tensor in zip(half.names, half.unstack(array), strict=True):
                    stem = layer.format(block).removesuffix(".weight")
                    tensors[f"{PREFIX}{stem}.lora_{part}.weight"] = np.ascontiguousarray(tensor, np.float32)
    targets = sorted(
        {layer.removesuffix(".weight").partition("{}.")[2] for name in adapters for layer in layers[name].names}
    )
    about = {"r": lora.rank, "lora_alpha": lora.rank, "target_modules": targets, "peft_type": "LORA"}
    header = json.dumps({f"{PREFIX}{name}": value for name, value in about.items()})
    save_file(tensors, folder / FILE, {"format": "pt", METADATA: header})


def read_lora(path: Path, model: ModelConfig) -> Adapters:
    """The adapters of a file, or of a folder that diffusers, PEFT or `vdit.export` wrote, for a model.

    Layers without one have zeros where others of the same matrix have one; smaller ranks are filled up with zeros.

    Raises:
      UserError: if the file cannot be read, or is of another model.
    """
    file = _file(path)
    pairs, alphas = _pairs(file, _tensors(file))
    weights = {
        layer.format(block).removesuffix(".weight"): (name, block, place)
        for name, weight in layers_of(model).items()
        for block in range(model.depth)
        for place, layer in enumerate(weight.names)
    }
    found: dict[str, dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]] = {}
    for layer, (a, b) in pairs.items():
        if layer not in weights:
            raise UserError(f"{file} has an adapter at {layer}, which the model does not have; it is of another model")
        name, block, place = weights[layer]
        outputs, inputs = layers_of(model)[name].published_shape
        if a.shape[1:] != (inputs,) or b.shape != (outputs, len(a)):
            raise UserError(
                f"{file}: the adapter at {layer} is of {b.shape[0]} x {a.shape[-1]} weights, the model has "
                f"{outputs} x {inputs} there; it is of another model"
            )
        found.setdefault(name, {})[block, place] = a, b * (alphas.get(layer, len(a)) / len(a))
    return {name: _stacked(layers_of(model)[name], model.depth, parts) for name, parts in found.items()}


def _stacked(
    weight: PublishedWeight, depth: int, parts: Mapping[tuple[int, int], tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    rank = max(len(a) for a, _ in parts.values())
    outputs, inputs = weight.published_shape
    nothing = np.zeros((0, inputs), np.float32), np.zeros((outputs, 0), np.float32)
    out = []
    for which, half in enumerate(halves(weight, rank)):
        blocks = []
        for block in range(depth):
            arrays = {}
            for place, name in enumerate(weight.names):
                array = parts.get((block, place), nothing)[which]
                missing = rank - array.shape[which]
                arrays[name.format(block)] = np.pad(array, [(0, missing), (0, 0)][:: 1 - 2 * which])
            blocks.append(half.stack(arrays.__getitem__, block))
        out.append(np.stack(blocks))
    return out[0], out[1]


def _file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in (FILE, PEFT_FILE):
        if (path / name).exists():
            return path / name
    raise UserError(f"{path} holds neither {FILE} nor {PEFT_FILE}; give a file of adapters")


def _tensors(file: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """All tensors of a file, by name, in float32, and its header's metadata."""
    try:
        with safe_open(file, "np") as reader:
            tensors = {name: np.asarray(reader.get_tensor(name), np.float32) for name in reader.keys()}  # noqa: SIM118
            metadata = reader.metadata() or {}
    except FileNotFoundError as error:
        raise UserError(f"{file} does not exist; give a safetensors file of adapters") from error
    except (OSError, SafetensorError, TypeError) as error:
        raise UserError(f"{file} is not a readable safetensors file ({error}); fetch it again") from error
    for name, array in tensors.items():
        check_finite(file, name, array)
    return tensors, metadata


def _pairs(
    file: Path, read: tuple[dict[str, np.ndarray], dict[str, str]]
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, float]]:
    """Layer -> (lora_A, lora_B), and layer -> alpha where it is not the rank."""
    tensors, metadata = read
    halves: dict[str, dict[str, np.ndarray]] = {}
    alphas: dict[str, float] = {}
    for name, array in tensors.items():
        layer, part = _parsed(name)
        if part == "alpha":
            alphas[layer] = float(array)
        elif part in ("A", "B") and array.ndim == 2:
            halves.setdefault(layer, {})[part] = array
        else:
            raise UserError(
                f"{file} holds {name}, which is not an adapter of a linear layer; give a file of lora_A, lora_B"
            )
    for layer, parts in halves.items():
        if missing := {"A", "B"} - parts.keys():
            raise UserError(f"{file} has no lora_{missing.pop()} of {layer}; fetch it again")
    if not halves:
        raise UserError(f"{file} holds no adapters; give a file of lora_A and lora_B")
    alpha, patterns = _alpha(file, metadata)
    for layer in halves:
        if (of_layer := patterns.get(layer, alpha)) is not None:
            alphas.setdefault(layer, of_layer)
    return {layer: (parts["A"], parts["B"]) for layer, parts in halves.items()}, alphas


def _parsed(name: str) -> tuple[str, str]:
    """(layer, "A", "B" or "alpha") of a tensor's name; the part is "" if it is none of them."""
    prefix = next(prefix for prefix in PREFIXES if name.startswith(prefix))
    stem, parts = name.removeprefix(prefix), {"lora_A": "A", "lora_B": "B", "lora_down": "A", "lora_up": "B"}
    for marker, part in parts.items():
        layer, found, rest = stem.partition(f".{marker}.")
        if found and rest in ("weight", "default.weight"):
            return layer, part
    return (stem.removesuffix(".alpha"), "alpha") if stem.endswith(".alpha") else (stem, "")


def _alpha(file: Path, metadata: Mapping[str, str]) -> tuple[float | None, dict[str, float]]:
    """(lora_alpha of all layers, of single ones) from a header of diffusers or the config that PEFT writes beside."""
    about: dict[str, Any] = {}
    with contextlib.suppress(OSError):
        about = _json(file.parent / PEFT_CONFIG, (file.parent / PEFT_CONFIG).read_text(encoding="utf-8"))
    if METADATA in metadata:
        values = _json(file, metadata[METADATA])
        about = {name.removeprefix(PREFIX): value for name, value in values.items()}
    if about.get("use_rslora") or about.get("use_dora"):
        raise UserError(f"{file} was made with use_rslora or use_dora, which are not read; give plain LoRA")
    alpha = about.get("lora_alpha")
    return (None if alpha is None else float(alpha)), dict(about.get("alpha_pattern") or {})


def _json(file: Path, text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("it is no object")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} has no readable rank and alpha ({error}); fetch it again") from error
    return values


def parse(flag: str) -> tuple[Path, float]:
    """(file, scale) of FILE or FILE:SCALE.

    Raises:
      UserError: if the scale is not a finite number.
    """
    path, colon, scale = flag.rpartition(":")
    whole = Path(flag).expanduser()
    if not colon or whole.exists():
        return whole, 1.0
    try:
        value = float(scale)
    except ValueError:
        return whole, 1.0
    if not np.isfinite(value):
        raise UserError(f"--lora={flag}: {scale} is not a finite number")
    return Path(path).expanduser(), value


def names_of(loras: Sequence[tuple[Path, float]]) -> list[str]:
    """The files and their scales, as they are written beside what was made with them."""
    return [f"{path}:{scale:g}" for path, scale in loras]
