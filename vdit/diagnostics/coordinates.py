"""The coordinate check of muP: after a few steps, how far activations have moved at each width (Yang et al. 2022).

Under muP neither the size of an activation nor how far a step moves it depends on the width. With one rate for all
weights instead, both grow with width, and a rate tuned on a small model is too high for a large one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vdit.batch import PackedBatch
from vdit.config import Config
from vdit.data import Interface
from vdit.diffusion import corruption
from vdit.diffusion.conditioning import MODES
from vdit.parallel.mesh import to_global, use_mesh
from vdit.training.step import init_state, make_train_step


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Activations of one width.

    Attributes:
      width: of the model.
      size_TK: root mean square of what is measured, after 0, 1, ... steps: the stream of tokens before the first block
        and after each, and the prediction last.
      moved_TK: the same of its difference to that before the first step.
    """

    width: int
    size_TK: np.ndarray
    moved_TK: np.ndarray


def coordinate_check(
    config: Config,
    interface: Interface,
    batches: Sequence[PackedBatch],
    mesh: Any,
    widths: Sequence[int],
    muP: bool = True,
) -> list[Coordinates]:
    """Trains each width for a step on every batch and measures on the first.

    Args:
      config: of the runs; its warm-up is left out, its rate is that of the base width, as always.
      interface: sizes fixed by the data set.
      batches: one for each step.
      mesh: devices.
      widths: multiples of config.model.head_width.
      muP: False takes each width as its own base width: the same rate for every weight of a kind, as without muP.
    """
    found = []
    for width in widths:
        base = config.model.base_width if muP else width
        model = dataclasses.replace(config.model, width=width, base_width=base)
        sized = dataclasses.replace(config, model=model)
        with use_mesh(mesh):
            graph, state = init_state(sized, interface)
            step, measure = make_train_step(graph, sized), _measure(graph, sized)
            first = to_global(batches[0], mesh)
            seen = [measure(state.params, first)]
            for batch in batches:
                state, _ = step(state, to_global(batch, mesh), np.float32(sized.optimizer.learning_rate))
                seen.append(measure(state.params, first))
        arrays = [[np.asarray(x) for x in activations] for activations in seen]
        size_TK = np.array([[_rms(x) for x in now] for now in arrays])
        moved_TK = np.array([[_rms(x - x0) for x, x0 in zip(now, arrays[0], strict=True)] for now in arrays])
        found.append(Coordinates(width, size_TK, moved_TK))
    return found


def slopes(found: Sequence[Coordinates]) -> np.ndarray:
    """Exponent of each measured thing's movement in the width, after the last step, (K,): 0 under muP."""
    widths = np.log([each.width for each in found])
    return np.polyfit(widths, np.log([each.moved_TK[-1] for each in found]), 1)[0]


def _rms(x: np.ndarray) -> float:
    return float(np.sqrt(np.square(x, dtype=np.float64).mean()))


def _measure(graph: Any, config: Config) -> Any:
    """Compiled (parameters, batch) -> the stream after 0, 1, ... blocks, and the prediction; padding is 0."""

    def measure(params: Any, batch: PackedBatch) -> list[jax.Array]:
        inputs = corruption.validation_inputs(
            batch, jax.random.key(0), jnp.float32(0.5), jnp.int32(MODES.index("text")), config.diffusion
        )
        given = inputs.noised_BLP, inputs.times_BK, inputs.time_index_BL, batch, inputs.null_BN
        real_BL1 = (batch.segments_BL > 0)[..., None]
        out = []
        for layers in range(config.model.depth + 1):
            part = nnx.State(params)
            part["blocks"] = jax.tree.map(lambda x: x[:layers], params["blocks"])  # noqa: B023 (called at once)
            out.append(nnx.merge(graph, part).stream(*given)[0] * real_BL1)
        return [*out, nnx.merge(graph, params)(*given) * batch.is_patch_BL[..., None]]

    return jax.jit(measure)
