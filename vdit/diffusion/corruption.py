"""From a packed batch to the inputs of the network: times, given patches, noise. Within rows, without communication."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vdit.batch import PackedBatch
from vdit.config import DiffusionConfig
from vdit.diffusion import conditioning, flow, randomness
from vdit.parallel.rowwise import rowwise

FORCED_TIMES = 64
"""Times that the groups of diffusion forcing are rounded to: (i + 1/2) / 64. They are shared by all examples of a row,
because what depends on time is computed once for each distinct time of a row."""

TIME, MODE, DROPOUT, FORCING, GROUP_TIME, GIVEN = (0xFFFFFFFF - i for i in range(6))
"""What is folded into an example's key to draw something for it. Token indices are folded into the same keys, so these
are numbers that no token has (GIVEN - i for the i-th draw of what is given)."""

GIVEN_DRAWS = tuple(GIVEN - i for i in range(conditioning.DRAWS))
"""For the uniform numbers that decide what an example's mode leaves open."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DenoisingInputs:
    """Inputs of the network for one batch, and the target.

    Attributes:
      noised_BLP: x_t of every slot.
      target_BLP: the velocity to predict.
      time_BL: diffusion time of every slot.
      times_BK: the distinct times of a row: one per example, 0, and those of diffusion forcing if there are any.
      time_index_BL: which of them each slot has.
      positions_BL3: the batch's, with references moved out of their clips.
      null_BN: examples whose caption is dropped.
      loss_mask_BL: 1.0 for patches that carry loss: real and not given.
    """

    noised_BLP: jax.Array
    target_BLP: jax.Array
    time_BL: jax.Array
    times_BK: jax.Array
    time_index_BL: jax.Array
    positions_BL3: jax.Array
    null_BN: jax.Array
    loss_mask_BL: jax.Array


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
    pixels = (from_model_scale(patches_LP, mean) + 1) * 127.5
    return np.clip(np.round(pixels), 0, 255).astype(np.uint8)


def from_model_scale(patches_LP: np.ndarray, mean: tuple[float, ...] = ()) -> np.ndarray:
    """The inverse of `to_model_scale` for latents."""
    return patches_LP + channel_means(mean, patches_LP.shape[-1])


def channel_means(mean: tuple[float, ...], size: int) -> np.ndarray:
    """The means of the channels, repeated as in a patch vector of `size` elements (zeros for none), float32."""
    channels = np.asarray(mean or (0.0,), np.float32)
    return np.tile(channels, size // len(channels))


def example_of_slot(batch: PackedBatch) -> jax.Array:
    """Index 0 ... N - 1 of each slot's example; padding gets 0. int32 example_BL."""
    return jnp.maximum(batch.segments_BL - 1, 0)


@jax.named_scope("corrupt")
def corrupt_batch(batch: PackedBatch, key: jax.Array, config: DiffusionConfig) -> DenoisingInputs:
    """Draws times, what is given, caption dropout and noise for one step from `key` and the examples' ids.

    Args:
      batch: packed rows, sharded over rows.
      key: fold_in(seed, step).
      config: distribution of times and modes.
    """

    def local(batch: PackedBatch, seed: jax.Array) -> DenoisingInputs:
        keys_BN = randomness.example_keys(jax.random.wrap_key_data(seed), batch.ids_BN2)
        drawn = randomness.example_uniform(keys_BN, (TIME, MODE, DROPOUT, FORCING, *GIVEN_DRAWS))
        time_BN, mode_BN, dropout_BN, forcing_BN = drawn[:4]
        chosen_BN = conditioning.draw_mode(mode_BN, config.modes)
        given_BN = conditioning.draw_conditioning(chosen_BN, jnp.moveaxis(drawn[4:], 0, -1), batch.grid_BN3)
        times_BN = times_of(time_BN, batch.grid_BN3, config, conditioning.any_given(given_BN, batch.grid_BN3))
        null_BN = dropout_BN < config.caption_dropout
        forced_BN = forcing_BN < config.forcing if config.forcing else None
        return _corrupt(batch, keys_BN, times_BN, given_BN, null_BN, forced_BN, config)

    return rowwise(local, batch, jax.random.key_data(key))


def validation_inputs(
    batch: PackedBatch, key: jax.Array, quantile: jax.Array, mode: jax.Array, config: DiffusionConfig
) -> DenoisingInputs:
    """Inputs with one quantile of time and one mode (an index into `conditioning.MODES`) for all, for validation.

    Noise, and what a mode leaves open, follow from `key` and the examples' ids.
    """

    def local(batch: PackedBatch, seed: jax.Array, quantile: jax.Array, mode: jax.Array) -> DenoisingInputs:
        keys_BN = randomness.example_keys(jax.random.wrap_key_data(seed), batch.ids_BN2)
        shape = batch.grid_BN3.shape[:2]
        draws_BND = jnp.moveaxis(randomness.example_uniform(keys_BN, GIVEN_DRAWS), 0, -1)
        given_BN = conditioning.draw_conditioning(jnp.full(shape, mode), draws_BND, batch.grid_BN3)
        some_BN = conditioning.any_given(given_BN, batch.grid_BN3)
        times_BN = times_of(jnp.full(shape, quantile), batch.grid_BN3, config, some_BN)
        return _corrupt(batch, keys_BN, times_BN, given_BN, jnp.zeros(shape, bool), None, config)

    return rowwise(local, batch, jax.random.key_data(key), quantile, mode)


def _corrupt(
    batch: PackedBatch,
    keys_BN: jax.Array,
    times_BN: jax.Array,
    given_BN: conditioning.Conditioning,
    null_BN: jax.Array,
    forced_BN: jax.Array | None,
    config: DiffusionConfig,
) -> DenoisingInputs:
    """Noises a batch. Local to rows.

    Args:
      batch: packed rows.
      keys_BN: the examples' random keys.
      times_BN: time of each example.
      given_BN: what is given of each example.
      null_BN: examples whose caption is dropped.
      forced_BN: examples whose groups have times of their own; None for none at all.
      config: distribution of those times, and the channel values that count as zero.
    """
    example_BL = example_of_slot(batch)
    grid_BL3 = jnp.take_along_axis(batch.grid_BN3, example_BL[..., None], axis=1)
    given_BL = conditioning.of_example(given_BN, example_BL)
    loss_mask_BL = batch.is_patch_BL & ~conditioning.given_patches(given_BL, grid_BL3, batch.token_BL)
    index_BL = example_BL
    times_BK = jnp.concatenate([times_BN, jnp.zeros_like(times_BN[:, :1])], axis=1)
    if forced_BN is not None:
        levels = (jnp.arange(FORCED_TIMES, dtype=jnp.float32) + 0.5) / FORCED_TIMES
        level_BL = _forced_level(keys_BN, example_BL, grid_BL3, batch.token_BL, config)
        index_BL = jnp.where(jnp.take_along_axis(forced_BN, example_BL, axis=1), times_BK.shape[1] + level_BL, index_BL)
        times_BK = jnp.concatenate([times_BK, jnp.broadcast_to(levels, (len(times_BK), FORCED_TIMES))], axis=1)
    time_index_BL = jnp.where(loss_mask_BL, index_BL, times_BN.shape[1])
    time_BL = jnp.take_along_axis(times_BK, time_index_BL, axis=1)
    clean_BLP = to_model_scale(batch.patches_BLP, config.mean)
    noise_BLP = randomness.token_noise(keys_BN, example_BL, batch.token_BL, batch.patches_BLP.shape[-1])
    positions_BL3 = batch.positions_BL3
    if config.modes.reference:
        shift_BL = conditioning.reference_shift(given_BL, grid_BL3, batch.token_BL) * batch.is_patch_BL
        positions_BL3 = positions_BL3.at[..., 0].add(shift_BL)
    return DenoisingInputs(
        noised_BLP=flow.corrupt(clean_BLP, noise_BLP, time_BL[..., None]),
        target_BLP=flow.velocity_target(clean_BLP, noise_BLP),
        time_BL=time_BL,
        times_BK=times_BK,
        time_index_BL=time_index_BL,
        positions_BL3=positions_BL3,
        null_BN=null_BN,
        loss_mask_BL=loss_mask_BL.astype(jnp.float32),
    )


def _forced_level(
    keys_BN: jax.Array, example_BL: jax.Array, grid_BL3: jax.Array, token_BL: jax.Array, config: DiffusionConfig
) -> jax.Array:
    """Which of `FORCED_TIMES` each slot's group has, each group's drawn by itself from the distribution of times."""
    group_BL = token_BL // jnp.maximum(grid_BL3[..., 1] * grid_BL3[..., 2], 1)
    uniform_BL = randomness.token_uniform(keys_BN, example_BL, GROUP_TIME, group_BL)
    return jnp.clip(
        (times_of(uniform_BL, grid_BL3, config, False) * FORCED_TIMES).astype(jnp.int32), 0, FORCED_TIMES - 1
    )


def times_of(uniform: jax.Array, grid: jax.Array, config: DiffusionConfig, given: jax.Array | bool) -> jax.Array:
    """The training distribution's time at each quantile.

    Args:
      uniform: quantiles, in [0, 1].
      grid: patch grids (..., 3).
      config: which distribution.
      given: whether any patch is.
    """
    if limited := config.times != (0.0, 1.0):
        low, high = (_quantile(time, grid, config, given) for time in config.times)
        uniform = low + uniform * (high - low)
    normal = jax.scipy.special.ndtri(jnp.clip(uniform, 1e-6, 1 - 1e-6))
    times = flow.logit_normal(normal, config.logit_mean, config.logit_std)
    times = flow.shift_as_configured(times, grid, config.size_shift, config.shift)
    if config.given_shift != 1:
        times = jnp.where(given, flow.scale_time(times, config.given_shift), times)
    return jnp.clip(times, *config.times) if limited else times


def _quantile(time: float, grid: jax.Array, config: DiffusionConfig, given: jax.Array | bool) -> jax.Array:
    """Share of the training distribution, that of all times, below a time. Shifts multiply the odds t / (1 - t)."""
    odds = flow.size_factor(grid) if config.size_shift else jnp.ones(grid.shape[:-1], jnp.float32)
    odds *= config.shift * jnp.where(given, config.given_shift, 1.0)
    with np.errstate(divide="ignore"):
        logit = np.log(np.float64(time)) - np.log1p(-np.float64(time))
    return jax.scipy.special.ndtr((np.float32(logit) - jnp.log(odds) - config.logit_mean) / config.logit_std)
