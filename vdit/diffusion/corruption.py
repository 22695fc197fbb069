"""From a packed batch to what the network is asked: times, given patches, noise. Row by row, without communication."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vdit.batch import PackedBatch
from vdit.config import DiffusionConfig
from vdit.diffusion import conditioning, flow, randomness
from vdit.parallel.rowwise import rowwise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Question:
    """What the network is asked about one batch.

    Attributes:
      noised_BLP: x_t of every slot.
      target_BLP: the velocity to predict.
      time_BL: diffusion time of every slot.
      times_BK: the distinct times of a row: one per example, then 0.
      time_index_BL: which of them each slot has.
      null_BN: examples whose caption is dropped.
      scored_BL: 1.0 for patches that carry loss: real and not given.
    """

    noised_BLP: jax.Array
    target_BLP: jax.Array
    time_BL: jax.Array
    times_BK: jax.Array
    time_index_BL: jax.Array
    null_BN: jax.Array
    scored_BL: jax.Array


def to_model_scale(patches_BLP: jax.Array, mean: tuple[float, ...] = ()) -> jax.Array:
    """uint8 pixels to [-1, 1] (latents are stored at unit scale), then the channels' mean becomes zero; float32.

    An Adam step moves a bias by at most the learning rate: without this a model of white pages spends its first
    hundreds of steps learning that the page is white.
    """
    scaled = patches_BLP.astype(jnp.float32)
    if patches_BLP.dtype == jnp.uint8:
        scaled = scaled / 127.5 - 1
    return scaled - channel_means(mean, scaled.shape[-1])


def to_pixels(patches_LP: np.ndarray, mean: tuple[float, ...] = ()) -> np.ndarray:
    """The inverse of `to_model_scale` for pixels, rounded and clipped to uint8."""
    pixels = (patches_LP + channel_means(mean, patches_LP.shape[-1]) + 1) * 127.5
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def channel_means(mean: tuple[float, ...], size: int) -> np.ndarray:
    """The means of the channels, repeated as in a patch vector of `size` elements (zeros for none), float32."""
    channels = np.asarray(mean or (0.0,), np.float32)
    return np.tile(channels, size // len(channels))


def example_of_slot(batch: PackedBatch) -> jax.Array:
    """Index 0 ... N - 1 of each slot's example; padding gets 0. int32 example_BL."""
    return jnp.maximum(batch.segments_BL - 1, 0)


def ask(
    batch: PackedBatch,
    times_BN: jax.Array,
    groups_BN: jax.Array,
    null_BN: jax.Array,
    noise_BLP: jax.Array,
    mean: tuple[float, ...] = (),
) -> Question:
    """Noises a batch by the given times. Local to rows.

    Args:
      batch: packed rows.
      times_BN: time of each example.
      groups_BN: leading groups of each example that are given.
      null_BN: examples whose caption is dropped.
      noise_BLP: standard normal noise.
      mean: channel values that count as zero.
    """
    example_BL = example_of_slot(batch)
    grid_BL3 = jnp.take_along_axis(batch.grid_BN3, example_BL[..., None], axis=1)
    groups_BL = jnp.take_along_axis(groups_BN, example_BL, axis=1)
    given_BL = conditioning.given_patches(groups_BL, grid_BL3, batch.token_BL)
    scored_BL = batch.is_patch_BL & ~given_BL
    count = times_BN.shape[1]
    times_BK = jnp.concatenate([times_BN, jnp.zeros_like(times_BN[:, :1])], axis=1)
    time_index_BL = jnp.where(scored_BL, example_BL, count)
    time_BL = jnp.take_along_axis(times_BK, time_index_BL, axis=1)
    clean_BLP = to_model_scale(batch.patches_BLP, mean)
    return Question(
        noised_BLP=flow.corrupt(clean_BLP, noise_BLP, time_BL[..., None]),
        target_BLP=flow.velocity_target(clean_BLP, noise_BLP),
        time_BL=time_BL,
        times_BK=times_BK,
        time_index_BL=time_index_BL,
        null_BN=null_BN,
        scored_BL=scored_BL.astype(jnp.float32),
    )


def training_question(batch: PackedBatch, key: jax.Array, config: DiffusionConfig) -> Question:
    """Draws times, given groups, caption dropout and noise for one step from `key` and the examples' ids.

    Args:
      batch: packed rows, sharded over rows.
      key: fold_in(seed, step).
      config: distribution of times and modes.
    """

    def local(batch: PackedBatch, seed: jax.Array) -> Question:
        keys_BN = randomness.example_keys(jax.random.wrap_key_data(seed), batch.ids_BN2)
        draw = jax.vmap(jax.vmap(lambda k, i: jax.random.uniform(jax.random.fold_in(k, i)), (0, None)), (0, None))
        # Token indices are folded into the same keys, so these draws take indices no token has.
        times_BN = _times(draw(keys_BN, 0xFFFFFFFF), batch.grid_BN3, config)
        groups_BN = conditioning.draw_given_groups(draw(keys_BN, 0xFFFFFFFE), batch.grid_BN3, config)
        null_BN = draw(keys_BN, 0xFFFFFFFD) < config.caption_dropout
        noise_BLP = randomness.token_noise(keys_BN, example_of_slot(batch), batch.token_BL, batch.patches_BLP.shape[-1])
        return ask(batch, times_BN, groups_BN, null_BN, noise_BLP, config.mean)

    return rowwise(local, batch, jax.random.key_data(key))


def fixed_question(
    batch: PackedBatch, key: jax.Array, quantile: jax.Array, groups: jax.Array, config: DiffusionConfig
) -> Question:
    """The question of validation: one quantile of time and one number of given groups for all, noise fixed by `key`."""

    def local(batch: PackedBatch, seed: jax.Array, quantile: jax.Array, groups: jax.Array) -> Question:
        keys_BN = randomness.example_keys(jax.random.wrap_key_data(seed), batch.ids_BN2)
        noise_BLP = randomness.token_noise(keys_BN, example_of_slot(batch), batch.token_BL, batch.patches_BLP.shape[-1])
        shape = batch.grid_BN3.shape[:2]
        times_BN = _times(jnp.full(shape, quantile), batch.grid_BN3, config)
        groups_BN = jnp.minimum(groups, jnp.maximum(batch.grid_BN3[..., 0] - 1, 0))
        return ask(batch, times_BN, groups_BN, jnp.zeros(shape, bool), noise_BLP, config.mean)

    return rowwise(local, batch, jax.random.key_data(key), quantile, groups)


def _times(uniform_BN: jax.Array, grid_BN3: jax.Array, config: DiffusionConfig) -> jax.Array:
    """The training distribution's time at each quantile."""
    normal_BN = jax.scipy.special.ndtri(jnp.clip(uniform_BN, 1e-6, 1 - 1e-6))
    times_BN = flow.logit_normal(normal_BN, config.logit_mean, config.logit_std)
    return flow.shift_time(times_BN, grid_BN3) if config.size_shift else times_BN
