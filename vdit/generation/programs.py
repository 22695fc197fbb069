"""What is compiled: two programs, whatever the sizes, lengths, modes, samplers and steps of the requests."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vdit.batch import PackedBatch
from vdit.config import Config
from vdit.diffusion import corruption, flow, guidance, randomness
from vdit.parallel.rowwise import rowwise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a sampler knows between evaluations, see `vdit.diffusion.samplers`: each _BLP float32."""

    x: jax.Array
    base: jax.Array
    before: jax.Array
    earlier: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moment:
    """One evaluation: the table of times of each row, and what happens at each."""

    times_BK: jax.Array
    weights_BK25: jax.Array
    scale_BK: jax.Array


def start(batch: PackedBatch, level_BL: jax.Array, start_BK: jax.Array, mean: tuple[float, ...]) -> State:
    """Every patch at the time it starts from: given ones are clean, generated ones noise."""

    def local(batch: PackedBatch, level_BL: jax.Array, start_BK: jax.Array) -> jax.Array:
        keys_BN = randomness.example_keys(jax.random.key(0), batch.ids_BN2)
        size = batch.patches_BLP.shape[-1]
        noise = randomness.token_noise(keys_BN, corruption.example_of_slot(batch), batch.token_BL, size)
        time_BL = jnp.take_along_axis(start_BK, level_BL, axis=1)
        return flow.corrupt(corruption.to_model_scale(batch.patches_BLP, mean), noise, time_BL[..., None])

    x_BLP = rowwise(local, batch, level_BL, start_BK)
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
    prediction = nnx.merge(graph, params)(x_BLP, times_BK, level_BL, batch, null_BN)
    velocity = flow.velocity(prediction, x_BLP, time_BL1, config.model.prediction, config.diffusion.least_time)
    return x_BLP - time_BL1 * velocity


def deviation(values_BLP: jax.Array, segments_BL: jax.Array, scored_BL: jax.Array, examples: int) -> jax.Array:
    """Standard deviation over the generated patches of each slot's example, BL1."""

    def local(values_BLP: jax.Array, segments_BL: jax.Array, scored_BL: jax.Array) -> jax.Array:
        def row(values_LP: jax.Array, segments_L: jax.Array, scored_L: jax.Array) -> jax.Array:
            add = lambda x_L: jax.ops.segment_sum(x_L * scored_L, segments_L, examples + 1)  # noqa: E731
            count_N = jnp.maximum(add(jnp.ones_like(scored_L)), 1)
            mean_N = add(values_LP.mean(-1)) / count_N
            spread_N = add(((values_LP - mean_N[segments_L][:, None]) ** 2).mean(-1)) / count_N
            return jnp.sqrt(spread_N)[segments_L][:, None]

        return jax.vmap(row)(values_BLP, segments_BL, scored_BL)

    return rowwise(local, values_BLP, segments_BL, scored_BL)


@functools.cache
def _programs(graph: Any, config: Config) -> tuple[Any, Any]:
    @functools.partial(jax.jit, static_argnames="guided", donate_argnames="state")
    def advance(
        params: Any,
        state: State,
        batch: PackedBatch,
        other: PackedBatch,
        null_BN: jax.Array,
        level_BL: jax.Array,
        moment: Moment,
        rescale: jax.Array,
        guided: bool,
    ) -> State:
        """One evaluation of the network (two with guidance) and the sampler's sums."""

        def look_up(level_BL: jax.Array, moment: Moment) -> tuple[jax.Array, jax.Array, jax.Array]:
            table = jnp.concatenate([moment.times_BK[..., None], moment.scale_BK[..., None]], -1)
            table = jnp.concatenate([table, moment.weights_BK25.reshape(*moment.times_BK.shape, -1)], -1)
            of_slot = jnp.take_along_axis(table, level_BL[..., None], axis=1)
            return of_slot[..., :1], of_slot[..., 1:2], of_slot[..., 2:]

        time_BL1, scale_BL1, weights_BLW = rowwise(look_up, level_BL, moment)
        of = moment.times_BK, level_BL, time_BL1
        now = clean_estimate(graph, params, state.x, batch, jnp.zeros_like(null_BN), of, config)
        if guided:
            conditional = now
            now = guidance.guide(now, clean_estimate(graph, params, state.x, other, null_BN, of, config), scale_BL1)
            scored_BL = (level_BL > 0).astype(now.dtype)
            spreads = [deviation(x, batch.segments_BL, scored_BL, null_BN.shape[1]) for x in (now, conditional)]
            now = guidance.rescale(now, jnp.maximum(spreads[0], 1e-6), spreads[1], rescale)
        terms = state.x, state.base, now, state.before, state.earlier
        x, base = (
            sum(weights_BLW[..., 5 * i + j : 5 * i + j + 1] * term for j, term in enumerate(terms)) for i in range(2)
        )
        return State(x, base, now, state.before)

    return jax.jit(functools.partial(start, mean=config.diffusion.mean)), advance


def programs(graph: Any, config: Config) -> tuple[Any, Any]:
    """(start, advance), shared by runs that differ in data, optimiser or length only."""
    return _programs(graph, Config(model=config.model, diffusion=config.diffusion))
