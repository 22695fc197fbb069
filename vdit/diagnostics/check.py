"""The numerics guard (`vdit.train --check`): the first step of a run against plain paths, without training.

A kernel, a compiler or a chip can be wrong without an error. What a run computes from its first rows is compared

1. as it will be trained, with one CPU device, float32 and dense attention;
2. with the same examples, each alone in a row;
3. by attention backend, with dense attention on the CPU.

Weights are fresh ones with noise: those that start at zero would hide what lies behind them.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from tqdm import tqdm

from vdit.batch import PackedBatch
from vdit.config import Config
from vdit.data import TrainingData, interface_of
from vdit.diagnostics.first_step import (
    Computed,
    FirstStep,
    attender,
    first_rows,
    noisy_params,
    plain_config,
    plain_mesh,
)
from vdit.errors import UserError
from vdit.parallel.mesh import make_mesh, row_shards
from vdit.training.loop import require_fit
from vdit.training.run import complete_config

BACKENDS = {"cpu": ("chunked",), "tpu": ("chunked", "splash"), "gpu": ("chunked", "gpu")}
"""Attention backends of a platform, beside that of the run."""

LOSS = {"float32": 1e-5, "bfloat16": 1e-3}
GRADIENT = {"float32": 1e-4, "bfloat16": 1e-1}
ATTENTION = {"float32": 1e-5, "bfloat16": 2e-2}
"""What may differ, by the precision of matrix products: the loss, relatively; a leaf of the gradient, the norm of the
difference over the norm; attention and its gradients, the largest difference over the largest value. One rounding is
6e-8 in float32, 4e-3 in bfloat16; sums in another order differ by several, and a gradient passes every layer twice."""

MIN_SHARE = 1e-3
"""A leaf counts at least as this share of the norm of the whole gradient, whose roundings reach it."""

Row = tuple[str, float, float, float, float]
"""Name of a quantity, found, expected, by how much it is off, and by how much it may be."""


def check(config: Config, workdir: epath.PathLike, data: TrainingData) -> str:
    """Prints the three comparisons as tables.

    Args:
      config: of a run of the task "diffusion".
      workdir: of the run; nothing is written to it.
      data: of the run.

    Returns:
      A line that names the quantity that is furthest beyond its tolerance; "" if none is.

    Raises:
      UserError: if config and data do not go together, JAX has no CPU device, or its memory is too small.
    """
    if config.task != "diffusion":
        raise UserError(f"--check is for runs of the task diffusion, not {config.task}")
    plain_mesh()  # a mistake shows before data are read
    mesh, config = make_mesh(config.mesh), complete_config(config, epath.Path(workdir), data)
    config = dataclasses.replace(config, lora=None)  # adapters start at zero: what is compared is the network
    require_fit(config, mesh)
    plain, interface = plain_config(config), interface_of(data.meta)
    params = noisy_params(plain, interface)
    packed, alone = first_rows(data)
    precision, platform = precision_of(config, mesh), mesh.devices.flat[0].platform

    run = FirstStep(config, interface, mesh, params)
    found = run(packed)
    axes, model = "x".join(map(str, mesh.shape.values())), config.model
    how = f"{platform} {axes}, {model.dtype}, {model.backend(platform)}"
    title = f"the step ({how}) against one CPU device, float32, reference"
    off = _show(title, gradient_rows(found, FirstStep(plain, interface, plain_mesh(), params)(packed), precision))
    title = "packed rows against every example alone in a row"
    off += _show(title, gradient_rows(found, mean_of(run, alone), precision))
    title = "attention within the segments of the rows against reference on the CPU, float32"
    off += _show(title, attention_rows(config, mesh, packed))
    return max(off)[1] if off else ""


def precision_of(config: Config, mesh: jax.sharding.Mesh) -> str:
    """That of matrix products. Unless JAX is set otherwise, TPUs round float32 to bfloat16 for them, GPUs to TF32."""
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    exact = mesh.devices.flat[0].platform == "cpu" or precision in ("highest", "float32")
    return "bfloat16" if config.model.dtype == "bfloat16" or not exact else "float32"


def mean_of(step: FirstStep, batches: Sequence[PackedBatch]) -> Computed:
    """Loss and gradient over all batches, each weighted by its patches that carry loss."""
    parts = tqdm(batches, "examples alone", unit="step", leave=False, disable=not sys.stderr.isatty())
    loss, scored = 0.0, 0.0
    gradient: dict[str, Any] = {}
    for part in map(step, parts):
        loss, scored = loss + part.scored * part.loss, scored + part.scored
        gradient = {name: gradient.get(name, 0) + part.scored * leaf for name, leaf in part.gradient.items()}
    return Computed(loss / scored, {name: leaf / scored for name, leaf in gradient.items()}, scored)


def gradient_rows(found: Computed, expected: Computed, precision: str) -> list[Row]:
    """The loss and every leaf of the gradient."""
    off = abs(found.loss - expected.loss) / abs(expected.loss)
    rows = [("loss", found.loss, expected.loss, off, LOSS[precision])]
    norms = {name: float(np.linalg.norm(leaf)) for name, leaf in expected.gradient.items()}
    floor = MIN_SHARE * math.hypot(*norms.values())
    for name, norm in norms.items():
        off = float(np.linalg.norm(found.gradient[name] - expected.gradient[name])) / max(norm, floor)
        rows.append(
            (f"gradient of {name}", float(np.linalg.norm(found.gradient[name])), norm, off, GRADIENT[precision])
        )
    return rows


def attention_rows(config: Config, mesh: jax.sharding.Mesh, batch: PackedBatch) -> list[Row]:
    """Output and gradients of every backend on random queries, keys and values; takes one row of each row shard."""
    model, platform = config.model, mesh.devices.flat[0].platform
    segments_BL = batch.segments_BL[: row_shards(mesh)]
    real = (segments_BL > 0)[:, None, :, None]
    shape = len(segments_BL), model.heads, segments_BL.shape[1], model.head_width
    rng = np.random.default_rng(config.seed)
    inputs = [rng.standard_normal(shape, np.float32).astype(jnp.dtype(model.dtype)) for _ in range(4)]
    inputs[3] = np.where(real, inputs[3], np.zeros_like(inputs[3]))  # no gradient comes from padding
    wide = [x.astype(np.float32) for x in inputs]
    reference = attender(plain_config(config), plain_mesh(), "reference")
    rows_of = [slice(b, b + 1) for b in range(len(segments_BL))]  # one at a time, for the memory
    each = [reference([x[row] for x in wide], segments_BL[row]) for row in rows_of]
    expected = [np.concatenate(parts) for parts in zip(*each, strict=True)]
    allowed, rows = ATTENTION[precision_of(config, mesh)], []
    for backend in dict.fromkeys((model.backend(platform), *BACKENDS[platform])):
        try:
            found = [x.astype(np.float32) for x in attender(config, mesh, backend)(inputs, segments_BL)]
        except UserError as error:
            _say(f"{backend} is left out: {error}")
            continue
        found[0] = np.where(real, found[0], 0)  # what it puts into padding has no meaning
        for name, a, b in zip(("output", "dq", "dk", "dv"), found, expected, strict=True):
            off = float(np.abs(a - b).max() / np.abs(b).max())
            rows.append((f"{backend} {name}", float(np.linalg.norm(a)), float(np.linalg.norm(b)), off, allowed))
    return rows


def _show(title: str, rows: Sequence[Row]) -> list[tuple[float, str]]:
    """Prints a table; returns (how many tolerances, a line) of each quantity that is off."""
    lines, off = [f"{title}\n  {'':<30} {'found':>12} {'expected':>12} {'off by':>9} {'allowed':>9}"], []
    for name, found, expected, by, allowed in rows:
        wrong = not by <= allowed  # also what is not finite
        lines.append(f"  {name:<30} {found:12.6g} {expected:12.6g} {by:9.1e} {allowed:9.0e}{'  OFF' * wrong}")
        if wrong:
            line = f"{title}: {name} is {found:.6g}, not {expected:.6g}; off by {by:.1e}, allowed {allowed:g}"
            off.append((by / allowed if math.isfinite(by) else math.inf, line))
    _say("\n".join(lines) + "\n")
    return off


def _say(text: str) -> None:
    """Prints, from one process only."""
    if jax.process_index() == 0:
        print(text, flush=True)
