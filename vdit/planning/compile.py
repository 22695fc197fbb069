"""Compiles the real train step for a TPU topology, on a machine without a TPU, and keeps the result.

libtpu's compiler needs no device: `jax.experimental.topologies` describes them.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import gzip
import hashlib
import importlib.metadata
import io
import json
import math
import os
import re
import time
import tokenize
import zlib
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.experimental import topologies
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import vdit
from vdit.batch import PackedBatch, RowShape
from vdit.config import Config
from vdit.config_dict import to_dict
from vdit.data import Interface
from vdit.errors import UserError
from vdit.io.files import cache_dir, parse_json, write_bytes
from vdit.parallel.mesh import make_mesh, row_shards, specs_of, use_mesh
from vdit.parallel.runtime import quiet_libtpu
from vdit.training.step import TrainState, abstract_state, make_train_step

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled train step, or why there is none.

    Attributes:
      hlo: text of the compiled module; "" if it does not fit.
      memory: GiB on each chip by kind; with temporaries, which are known only if it fits, they sum to `needed`.
      needed: GiB of HBM it needs; what the compiler says where it does not fit.
      seconds: time of the compilation.
      problem: the compiler's words if it does not fit, else "".
    """

    hlo: str
    memory: dict[str, float]
    needed: float
    seconds: float
    problem: str


def describe(topology: str, slices: int) -> list[Any]:
    """The devices of a topology such as "v5p:4x4x4", of so many slices.

    Raises:
      UserError: if there is no such topology, or libtpu is not installed.
    """
    quiet_libtpu()
    os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"  # another process, or a real TPU, may hold the library's lock
    more = {"num_slices": slices} if slices > 1 else {}
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology, **more).devices)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        if "libtpu" in str(error):
            raise UserError(f'the TPU compiler is not installed: pip install "vdit[tpu]" ({error})') from error
        raise UserError(
            f"--topology={topology} is not one that the TPU compiler knows: {_first_line(error)}"
        ) from error


def compile_step(config: Config, topology: str, slices: int, interface: Interface, pixels: bool) -> Program:
    """The compiled step, from the cache if it has been compiled before.

    Raises:
      UserError: if mesh and topology, or mesh and model, do not go together.
    """
    key = _key(config, topology, slices, interface, pixels)
    kept = _load(key)
    if kept is None:
        kept = _compile(config, topology, slices, interface, pixels)
        _save(key, kept)
    return kept


def abstract_batch(config: Config, interface: Interface, pixels: bool, mesh: jax.sharding.Mesh) -> PackedBatch:
    """Shapes and shardings of the batch of one step."""
    shape, rows = (
        RowShape(config.data.row_tokens, config.data.row_examples, config.data.row_text),
        config.data.rows_per_step,
    )
    slots = (rows, shape.tokens)

    array = jax.ShapeDtypeStruct
    batch = PackedBatch(
        patches_BLP=array((*slots, interface.patch), np.uint8 if pixels else ml_dtypes.bfloat16),
        positions_BL3=array((*slots, 3), np.float32),
        segments_BL=array(slots, np.int32),
        token_BL=array(slots, np.int32),
        text_BME=array((rows, shape.text, interface.text), np.float32),
        text_index_BL=array(slots, np.int32),
        grid_BN3=array((rows, shape.examples, 3), np.int32),
        ids_BN2=array((rows, shape.examples, 2), np.uint32),
    )
    return jax.tree.map(
        lambda a, spec: array(a.shape, a.dtype, sharding=NamedSharding(mesh, spec)), batch, specs_of(batch)
    )


def _compile(config: Config, topology: str, slices: int, interface: Interface, pixels: bool) -> Program:
    if config.model.attention == "gpu":
        raise UserError("model.attention=gpu has no kernel for TPUs; take --config.model.attention=splash")
    mesh = make_mesh(config.mesh, describe(topology, slices))
    if config.data.rows_per_step % row_shards(mesh):
        raise UserError(
            f"data.rows_per_step={config.data.rows_per_step} is not a multiple of the {row_shards(mesh)} row shards of "
            f"the mesh on {slices} x {topology}; set --config.data.rows_per_step"
        )
    with use_mesh(mesh):
        graph, state = abstract_state(config, interface, mesh)
        batch = abstract_batch(config, interface, pixels, mesh)
        rate = jax.ShapeDtypeStruct((), np.float32, sharding=NamedSharding(mesh, P()))
        start = time.perf_counter()
        step: Any = make_train_step(graph, config)
        lowered = step.lower(state, batch, rate)
        memory = _held(state, batch)
        try:
            compiled = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise UserError(f"the TPU compiler refuses this step: {_first_line(error)}") from error
            return Program("", memory, _needed(str(error)), time.perf_counter() - start, _first_line(error))
    stats = compiled.memory_analysis()
    needed = stats.peak_memory_in_bytes / GIB
    memory["padding"] = stats.argument_size_in_bytes / GIB - sum(memory.values())
    memory["code"] = stats.generated_code_size_in_bytes / GIB
    memory["temporaries"] = needed - sum(memory.values())
    return Program(compiled.as_text(), memory, needed, time.perf_counter() - start, "")


def _held(state: TrainState, batch: PackedBatch) -> dict[str, float]:
    """GiB on each chip of what the step is given."""

    def size(tree: Any) -> float:
        leaves = jax.tree.leaves(tree)
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves) / GIB

    return {
        "parameters": size(state.params),
        "optimiser": size(state.optimizer),
        "average": size(state.ema),
        **({"frozen weights": size(state.frozen)} if state.frozen else {}),
        "batch": size(batch),
    }


def _needed(message: str) -> float:
    """GiB of HBM that a program needs which does not fit, from the compiler's message; NaN if it does not say."""
    units = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}
    match = re.search(r"Used ([\d.]+)([KMGT]) of \S+ hbm|\(([\d.]+)([KMGT])\) exceeds available HBM", message)
    number, unit = [part for part in match.groups() if part] if match else (math.nan, "G")
    return float(number) * units[unit]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _key(config: Config, topology: str, slices: int, interface: Interface, pixels: bool) -> str:
    """Names a compilation by all that decides it: what of the config the program sees, topology, versions, sources."""
    values = to_dict(config)
    for section in ("plan", "train"):
        del values[section]
    for name in ("path", "split", "captions", "pack_window", "max_frames"):
        values["data"].pop(name, None)
    parts = values, topology, slices, dataclasses.astuple(interface), pixels, fingerprint()
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


@functools.cache
def fingerprint() -> str:
    """A digest of versions and of the sources that make the program, comments and docstrings apart.

    The config counts by its values, see `_key`.
    """
    versions = {
        name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "libtpu", "tokamax", "flax", "optax")
    }
    digest = hashlib.sha256(json.dumps(versions).encode())
    for name in sorted(_imported("vdit.training.step") | {__name__}):
        digest.update(_code(_file(name).read_text()).encode())
    return digest.hexdigest()[:16]


def _code(source: str) -> str:
    """A source without comments, docstrings and empty lines; the same on every version of Python, as an AST is not."""
    lines = source.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            lines[node.lineno - 1 : node.end_lineno] = [""] * (node.end_lineno - node.lineno + 1)  # type: ignore[operator]
    return "\n".join(line.rstrip() for line in lines if line.strip())


def _imported(module: str) -> set[str]:
    """The package's modules that a module imports, at any depth, and itself; without vdit.config."""
    found: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        if name in found or name == "vdit.config" or not _file(name).is_file():
            continue
        found.add(name)
        for node in ast.walk(ast.parse(_file(name).read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vdit"):
                todo += [f"{node.module}", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _file(module: str) -> Path:
    return Path(vdit.__file__).parents[1] / (module.replace(".", "/") + ".py")


def _folder() -> Path:
    return cache_dir() / "plan"


def _load(key: str) -> Program | None:
    file = _folder() / f"{key}.json.gz"
    if not file.is_file():
        return None
    try:
        return Program(**parse_json(gzip.decompress(file.read_bytes()), file))
    except (UserError, OSError, EOFError, zlib.error, TypeError):  # it is compiled anew
        return None


def _save(key: str, program: Program) -> None:
    _folder().mkdir(parents=True, exist_ok=True)
    write_bytes(_folder() / f"{key}.json.gz", gzip.compress(json.dumps(dataclasses.asdict(program)).encode(), 3))
