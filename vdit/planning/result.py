"""A plan: everything that `python -m vdit.plan` says about one config on one topology."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from vdit.config import Config
from vdit.data import RowLengths
from vdit.flops import muon_flops
from vdit.parallel.mesh import make_mesh, row_shards
from vdit.planning import cost as costs
from vdit.planning import estimate, hlo, memory
from vdit.planning.chips import chip_of
from vdit.planning.compile import GIB, Program, compile_step, describe
from vdit.planning.estimate import Assumptions

HOUR = 3600.0


def plan(
    config: Config, topology: str, slices: int, rows: RowLengths, assumptions: Assumptions, budget: int
) -> tuple[dict[str, Any], Program]:
    """Compiles the step and reads its cost.

    Args:
      config: the run.
      topology, slices: such as "v5p:4x4x4", and how many.
      rows: to plan with.
      assumptions: what the compiled program does not contain.
      budget: rows that the run reads in all.

    Returns:
      values for JSON, keys as in docs/planner.md; those that need a compiled program are None if it does not fit.
      The program.

    Raises:
      UserError: if config, topology and mesh do not go together.
    """
    chip = chip_of(topology)
    program = compile_step(config, topology, slices, rows.interface, rows.pixels)
    mesh = make_mesh(config.mesh, describe(topology, slices))
    module = hlo.parse(program.hlo) if program.hlo else None
    cost = costs.read(module) if module else costs.Cost()
    work = estimate.work_of(config, rows, cost, mesh.size, row_shards(mesh))
    values: dict[str, Any] = {
        "fits": not program.problem,
        "hbm_gib_per_chip": round(program.needed, 3) if math.isfinite(program.needed) else None,
        "hbm_gib_limit": chip.hbm,
        "memory_gib": _memory(program, module),
        "model_tflops_per_step": work.model_flops / 1e12,
        "muon_tflops_per_chip": muon_flops(config.model) / 1e12 if config.optimizer.method == "muon" else 0.0,
        "topology": topology,
        "slices": slices,
        "chips": mesh.size // chip.devices,
        "mesh": dict(mesh.shape),
        "rows_per_step": config.data.rows_per_step,
        "row_tokens": config.data.row_tokens,
        "remat": config.model.remat,
        "attention": config.model.backend("tpu"),
        "steps": math.ceil(budget / config.data.rows_per_step),
        "tokens_per_step": work.tokens,
        "fill": work.tokens / work.slots,
        "attention_overhead": work.attention_overhead,
        "attention_speed": work.attention_speed,
        "imbalance": work.imbalance,
        "assumptions": dataclasses.asdict(assumptions),
        "compile_seconds": round(program.seconds, 1),
        "problem": program.problem,
    }
    values |= dict.fromkeys(_COMPILED)
    if module:
        values |= _compiled(config, topology, slices, assumptions, mesh, cost, work)
        values["hours"] = values["steps"] * values["step_seconds"] / HOUR
        if assumptions.price is not None:
            values["cost"] = values["hours"] * values["chips"] * assumptions.price
    return values, program


_COMPILED = (
    *("compiled_over_model_flops", "compiled_over_model_flops_outside_attention", "cycles_over_matmul_cycles"),
    *("step_seconds", "step_seconds_low", "step_seconds_high", "seconds", "mfu", "mfu_low", "mfu_high"),
    *("tokens_per_second", "collectives", "hours", "cost", "open_loops"),
)
"""Keys that need a compiled program."""


def _compiled(
    config: Config,
    topology: str,
    slices: int,
    assumptions: Assumptions,
    mesh: Any,
    cost: costs.Cost,
    work: estimate.Work,
) -> dict[str, Any]:
    chip = chip_of(topology)
    coordinates = np.array([device.coords for device in mesh.devices.flat])
    seconds = estimate.seconds_of(cost, work, chip, assumptions, coordinates, slices)
    low, expected, high = (seconds[name].total for name in ("low", "expected", "high"))
    busy = sum(op.cycles for op in cost.ops if op.kind != "prefetch")
    apart = config.model.backend("tpu") != "reference"  # that one is part of the compiled program

    def mfu(step_seconds: float) -> float:
        return work.model_flops / (mesh.size * chip.peak * step_seconds)

    return {
        "compiled_over_model_flops": work.compiled_flops / work.model_flops,
        "compiled_over_model_flops_outside_attention": cost.flops * mesh.size / work.linear_flops if apart else None,
        "cycles_over_matmul_cycles": busy / (cost.flops / chip.flops_per_cycle) if apart else None,
        "step_seconds": expected,
        "step_seconds_low": low,
        "step_seconds_high": high,
        "seconds": {name: dataclasses.asdict(parts) for name, parts in seconds.items()},
        "mfu": mfu(expected),
        "mfu_low": mfu(high),
        "mfu_high": mfu(low),
        "tokens_per_second": work.tokens / expected,
        "collectives": estimate.totals(cost.collectives),
        "open_loops": len(cost.open_loops),
    }


def _memory(program: Program, module: hlo.Module | None) -> dict[str, float]:
    """GiB on a chip by kind; temporaries are split into what loops over layers stack, and the rest."""
    kinds = dict(program.memory)
    if module:
        stacks = memory.stacked(module)
        for name in ("activations", "gradients"):
            kinds[name] = min(stacks[name] / GIB, kinds["temporaries"])
            kinds["temporaries"] -= kinds[name]
        if stacks["host activations"]:
            kinds["activations on the host"] = stacks["host activations"] / GIB
    return {name: round(value, 4) for name, value in kinds.items()}
