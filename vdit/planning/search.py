"""Tries meshes, rows and remat policies on a topology and ranks those that fit."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

from tqdm import tqdm

from vdit import flops
from vdit.config import Config, MeshConfig
from vdit.data import RowLengths
from vdit.errors import UserError
from vdit.planning.chips import chip_of
from vdit.planning.compile import GIB, describe
from vdit.planning.estimate import Assumptions
from vdit.planning.result import plan

POLICIES = ("none", "attention", "blocks", "offload")
"""Remat policies, from the fastest to the one that keeps least."""

ROWS = (1, 2, 4)
"""Rows of a row shard that are tried."""

STATE_BYTES = {"adamw": 4 * 4, "muon": 3 * 4}
"""Of a parameter at rest, by optimiser: itself, two moments (with Muon one) and the average, in float32."""

FROZEN_BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}
"""Of a frozen parameter, by config.lora.base; adapters are few."""

ACTIVATION_BYTES = 2
"""Of a channel of a token that every policy keeps on the chip or the host: a block's input, in bfloat16."""


def search(
    config: Config, topology: str, slices: int, rows: RowLengths, assumptions: Assumptions, compilations: int
) -> list[dict[str, Any]]:
    """Plans of the candidates that were compiled: those that fit by tokens a second, then the others by their need.

    For each mesh, least communication first, rows are added and the policy that recomputes least is searched. What
    the state and the inputs of the blocks alone would overfill is not compiled.

    Args:
      config: the run; its mesh, rows_per_step and remat are set aside.
      topology, slices, assumptions: as for `plan`.
      rows: to plan with.
      compilations: the most to make; one from the cache counts too.

    Raises:
      UserError: if no mesh goes with model and topology.
    """
    found: list[dict[str, Any]] = []
    candidates = meshes(config, topology, slices, rows)
    if not candidates:
        raise UserError(f"no mesh of {slices} x {topology} divides the model and holds its state; take more chips")
    with tqdm(total=compilations, unit="program", disable=not sys.stderr.isatty()) as bar:
        for mesh in candidates:
            policies = list(POLICIES)
            for count in ROWS:
                shards = mesh.replica * mesh.fsdp
                while policies and len(found) < compilations:
                    tried = dataclasses.replace(
                        config,
                        mesh=mesh,
                        data=dataclasses.replace(config.data, rows_per_step=count * shards),
                        model=dataclasses.replace(config.model, remat=policies[0]),
                    )
                    name = f"replica={mesh.replica} fsdp={mesh.fsdp} context={mesh.context} tensor={mesh.tensor}"
                    bar.set_description(f"{name} rows={count} remat={policies[0]}")
                    try:
                        values = plan(tried, topology, slices, rows, assumptions, budget_of(config))[0]
                    except UserError as problem:  # this mesh does not go with this model
                        _tell(bar, f"{name}: {problem}")
                        policies = []
                        break
                    found.append(values)
                    bar.update()
                    verdict = f"{values['step_seconds']:.3g} s a step" if values["fits"] else "does not fit"
                    _tell(bar, f"{len(found)}/{compilations} {name} rows={count} remat={policies[0]}: {verdict}")
                    if values["fits"]:
                        break
                    policies.pop(0)
    if not found:
        raise UserError(f"no mesh of {slices} x {topology} goes with this model; see the lines above")
    return sorted(found, key=_rank)


def budget_of(config: Config) -> int:
    """Rows that a run reads: what stays the same where rows_per_step is changed."""
    return config.train.steps * config.data.rows_per_step


def _rank(values: dict[str, Any]) -> tuple[bool, float]:
    return not values["fits"], -values["tokens_per_second"] if values["fits"] else values["hbm_gib_per_chip"] or 1e9


def _tell(bar: tqdm, line: str) -> None:
    if bar.disable:
        print(line, file=sys.stderr, flush=True)


def meshes(config: Config, topology: str, slices: int, rows: RowLengths) -> list[MeshConfig]:
    """Meshes whose axes divide the model and that hold its state and the inputs of its blocks.

    Splitting a row or the heads moves activations, splitting the state only weights, so those with little context and
    tensor come first; among them those with few replicas, which hold the least state.
    """
    model, data = config.model, config.data
    chips, limit = len(describe(topology, slices)) // slices, chip_of(topology).hbm
    shape = flops.shape_of(model, rows.interface.patch, rows.interface.text, config.lora)
    each = FROZEN_BYTES[config.lora.base] if config.lora else STATE_BYTES[config.optimizer.method]
    state = flops.parameters(shape).total * each / GIB
    inputs = model.depth * data.row_tokens * model.width * ACTIVATION_BYTES / GIB
    found = []
    sizes = [size for size in range(1, chips + 1) if chips % size == 0]
    for tensor, context, fsdp in ((t, c, f) for t in sizes for c in sizes for f in sizes):
        inside = tensor * context * fsdp
        divides = model.heads % tensor == 0 and model.width % (fsdp * context) == 0 and data.row_tokens % context == 0
        if chips % inside == 0 and divides and state / inside + inputs / context < limit:
            found.append(MeshConfig(slices * (chips // inside), fsdp, context, tensor))
    return sorted(found, key=lambda mesh: (mesh.tensor * mesh.context, mesh.tensor, mesh.replica))
