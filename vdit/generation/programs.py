"""What is compiled: the same programs for all sizes, lengths, modes, samplers and numbers of steps.

`start` makes the noise; `advance` is one evaluation, compiled once without and once with guidance (and once more for
guidance that is rescaled).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vdit.batch import PER_TOKEN, PackedBatch, generated_part
from vdit.config import Config
from vdit.diffusion import corruption, flow, guidance, randomness
from vdit.parallel.rowwise import rowwise, sum_of_segments, take
from vdit.patches import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a sampler knows between evaluations, see `vdit.diffusion.samplers`: each _BLP float32."""

    x: Array = dataclasses.field(metadata=PER_TOKEN)
    base: Array = dataclasses.field(metadata=PER_TOKEN)
    before: Array = dataclasses.field(metadata=PER_TOKEN)
    earlier: Array = dataclasses.field(metadata=PER_TOKEN)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenoiseInputs:
    """What does not change while rows are denoised, see `packing.Rows`."""

    batch: PackedBatch
    other: PackedBatch
    null_BN: Array
    level_BL: Array = dataclasses.field(metadata=PER_TOKEN)


TIME, SCALE, WEIGHTS = slice(0, 1), slice(1, 2), slice(2, None)
"""Columns of the table of one evaluation: the time of each entry, its scale of guidance, and the ten weights of
`vdit.diffusion.samplers`."""


def start(inputs: DenoiseInputs, start_BK: jax.Array, mean: tuple[float, ...], condition: int) -> State:
    """Every patch at the time it starts from: given ones are clean, generated ones noise."""

    def local(batch: PackedBatch, level_BL: jax.Array, start_BK: jax.Array) -> jax.Array:
        keys_BN = randomness.example_keys(jax.random.key(0), batch.ids_BN2)
        size = batch.patches_BLP.shape[-1]
        noise = randomness.token_noise(keys_BN, corruption.example_of_slot(batch), batch.token_BL, size)
        time_BL = jnp.take_along_axis(start_BK, level_BL, axis=1)
        return flow.corrupt(corruption.to_model_scale(batch.patches_BLP, mean), noise, time_BL[..., None])

    x_BLP = rowwise(local, generated_part(inputs.batch, condition), inputs.level_BL, start_BK)
    return State(x_BLP, x_BLP, jnp.zeros_like(x_BLP), jnp.zeros_like(x_BLP))


def clean_estimate(
    graph: Any,
    params: Any,
    x_BLP: jax.Array,
    batch: PackedBatch,
    null_BN: jax.Array,
    of: tuple[Any, ...],
    config: Config,
) -> jax.Array:
    """The state less t v: the network's own estimate where it predicts clean patches and t is at least `least_time`.

    Args:
      of: (times_BK, level_BL, time_BL1) of the slots.
    """
    times_BK, level_BL, time_BL1 = of
    input_BLP = flow.scaled_input(x_BLP, time_BL1, config.diffusion.input_std)
    prediction = nnx.merge(graph, params)(input_BLP, times_BK, level_BL, batch, null_BN)
    velocity = flow.velocity(prediction, x_BLP, time_BL1, config.model.prediction, config.diffusion.least_time)
    return x_BLP - time_BL1 * velocity


def deviation(values_BLP: jax.Array, inputs: DenoiseInputs) -> jax.Array:
    """Standard deviation over the generated patches of each slot's example, BL1."""
    segments_BL, size = inputs.batch.segments_BL, inputs.null_BN.shape[1]
    scored_BL = (inputs.level_BL > 0).astype(values_BLP.dtype)
    count_BN = jnp.maximum(sum_of_segments(scored_BL, segments_BL, size), 1)
    mean_BN = sum_of_segments(values_BLP.mean(-1) * scored_BL, segments_BL, size) / count_BN

    def of_slot(values_BN: jax.Array, segments_BL: jax.Array) -> jax.Array:
        return jnp.take_along_axis(values_BN, jnp.maximum(segments_BL - 1, 0), axis=1)[..., None]

    square_BL = ((values_BLP - rowwise(of_slot, mean_BN, segments_BL)) ** 2).mean(-1)
    variance_BN = sum_of_segments(square_BL * scored_BL, segments_BL, size) / count_BN
    return rowwise(of_slot, jnp.sqrt(variance_BN), segments_BL)


@functools.cache
def _programs(graph: Any, config: Config) -> tuple[Any, Any]:
    @functools.partial(jax.jit, static_argnames=("guided", "rescaled"), donate_argnames="state")
    def advance(
        experts: tuple[Any, ...],
        boundary: jax.Array,
        state: State,
        inputs: DenoiseInputs,
        table_BKW: jax.Array,
        rescale: jax.Array,
        guided: bool,
        rescaled: bool,
    ) -> State:
        """One evaluation of the network (two with guidance) and the sampler's sums.

        Of two experts each is evaluated, and every patch takes the estimate of the one for its time.
        """
        slots_BLW = take(table_BKW, inputs.level_BL)
        of = table_BKW[..., 0], inputs.level_BL, slots_BLW[..., TIME]

        def estimate(batch: PackedBatch, null_BN: jax.Array) -> jax.Array:
            first, *second = (clean_estimate(graph, params, state.x, batch, null_BN, of, config) for params in experts)
            return jnp.where(of[2] >= boundary, first, second[0]) if second else first

        now = estimate(batch=inputs.batch, null_BN=jnp.zeros_like(inputs.null_BN))
        if guided:
            conditional = now
            now = guidance.guide(now, estimate(batch=inputs.other, null_BN=inputs.null_BN), slots_BLW[..., SCALE])
            if rescaled:
                spread = jnp.maximum(deviation(now, inputs), 1e-6)
                now = guidance.rescale(now, spread, deviation(conditional, inputs), rescale)
        weights_BLW = slots_BLW[..., WEIGHTS]
        terms = state.x, state.base, now, state.before, state.earlier
        x, base = (
            sum(weights_BLW[..., 5 * i + j : 5 * i + j + 1] * term for j, term in enumerate(terms)) for i in range(2)
        )
        return State(x, base, now, state.before)

    return jax.jit(functools.partial(start, mean=config.diffusion.mean, condition=config.model.condition)), advance


def programs(graph: Any, config: Config) -> tuple[Any, Any]:
    """(start, advance), shared by runs that differ in data, optimiser or length only."""
    return _programs(graph, Config(model=config.model, diffusion=config.diffusion))
