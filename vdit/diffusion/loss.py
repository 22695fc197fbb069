"""The training loss: squared error of the velocity, over all patches of a step that are not given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vdit.batch import PackedBatch, generated_part
from vdit.config import Config
from vdit.diffusion import flow
from vdit.diffusion.corruption import DenoisingInputs, corrupt_batch
from vdit.parallel.rowwise import split_rows


def denoising_loss(
    graph: Any, params: Any, batch: PackedBatch, inputs: DenoisingInputs, config: Config
) -> tuple[jax.Array, jax.Array]:
    """Squared error of the velocity, averaged over a patch's elements, for every slot.

    Returns:
      error_BL (0 where no loss is taken) and the number of patches that carry loss.
    """
    batch = dataclasses.replace(batch, positions_BL3=inputs.positions_BL3)
    time_BL1 = inputs.time_BL[..., None]
    input_BLP = flow.scaled_input(inputs.noised_BLP, time_BL1, config.diffusion.input_std)
    prediction_BLP = nnx.merge(graph, params)(input_BLP, inputs.times_BK, inputs.time_index_BL, batch, inputs.null_BN)
    velocity_BLP = flow.velocity(
        prediction_BLP, inputs.noised_BLP, time_BL1, config.model.prediction, config.diffusion.least_time
    )
    error_BL = ((velocity_BLP - inputs.target_BLP) ** 2).mean(-1) * inputs.loss_mask_BL
    return error_BL, inputs.loss_mask_BL.sum()


def train_loss(graph: Any, params: Any, batch: PackedBatch, key: jax.Array, config: Config) -> jax.Array:
    """Mean error of all patches of the step that carry loss, over all devices: the same for any packing or mesh."""
    inputs = corrupt_batch(generated_part(batch, config.model.condition), key, config.diffusion)
    error_BL, count = denoising_loss(graph, params, batch, inputs, config)
    return error_BL.sum() / jnp.maximum(count, 1)


def loss_and_gradients(
    graph: Any,
    params: Any,
    batch: PackedBatch,
    key: jax.Array,
    config: Config,
    complete: Callable[[Any], Any] = lambda params: params,
) -> tuple[jax.Array, Any]:
    """`train_loss` and its gradient, in optimizer.accumulate parts of each device's rows, one after another.

    `complete` makes all parameters of the model from `params`, by which the loss is differentiated.
    """
    parts = config.optimizer.accumulate
    if parts == 1:
        return jax.value_and_grad(lambda p: train_loss(graph, complete(p), batch, key, config))(params)
    inputs = corrupt_batch(generated_part(batch, config.model.condition), key, config.diffusion)
    count = jnp.maximum(inputs.loss_mask_BL.sum(), 1)

    def part_loss(params: Any, part: Any) -> jax.Array:
        rows, of_rows = part
        return denoising_loss(graph, complete(params), rows, of_rows, config)[0].sum() / count

    def add(total: Any, part: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(part_loss)(params, part)), None

    zero = jnp.zeros((), count.dtype), jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, zero, split_rows((batch, inputs), parts))[0]
