"""The train step of the causal_vae: a pure function of (state, crops, rate)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec as P
from optax.contrib import MuonDimensionNumbers

from vdit.config import Config
from vdit.models.autoencoders import causal_vae
from vdit.models.features.efficientnet import feature_distance
from vdit.parallel.mesh import ROWS, rows_spec
from vdit.patches import Patch
from vdit.training.optimization.clipping import clipping
from vdit.training.step import TrainState, keep_finite


def make_optimizer(config: Config, weights: Mapping[str, Any]) -> optax.GradientTransformation:
    """Clipping and Muon for kernels, Adam for the rest; the step multiplies by the learning rate.

    Muon (Jordan et al. 2024) makes the momentum of a kernel orthogonal; scaled as by Liu et al. 2025 (arXiv:2502.16982)
    its entries change as much as under Adam. The linear maps, which start as principal components, and the vectors keep
    Adam, at a tenth of the rate.
    """
    learned = {
        name: MuonDimensionNumbers(tuple(range(weight.ndim - 1)), weight.ndim - 1)
        if weight.ndim > 1 and not name.endswith("linear")
        else None
        for name, weight in weights.items()
    }
    muon = optax.contrib.muon(
        -1.0,  # the sign of a gradient is kept
        consistent_rms=0.2,
        adam_learning_rate=-0.1,
        adam_b1=config.optimizer.beta1,
        adam_b2=config.optimizer.beta2,
        muon_weight_dimension_numbers=learned,
    )
    return optax.chain(*clipping(config.optimizer), muon)


def init_state(config: Config, weights: Mapping[str, jax.Array]) -> TrainState:
    """The state at step 0 of a run that starts with these weights."""
    params = dict(weights)
    average = jax.tree.map(jnp.copy, params)  # donated buffers must not be shared
    return TrainState(jnp.zeros((), jnp.int32), params, average, make_optimizer(config, params).init(params))


def crop_loss(
    weights: Mapping[str, jax.Array], crops_BTYXC: jax.Array, keys_B: jax.Array, config: Config, observer: Any = None
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Squared error per pixel value plus the weighted other terms of `AutoencoderConfig`, averaged over crops.

    Args:
      weights: of the autoencoder.
      crops_BTYXC: pixels in [-1, 1].
      keys_B: of the noise of each crop's latents.
      config: of the run.
      observer: weights of `efficientnet.load_weights`; needed if config.autoencoder.perceptual is not 0.
    """
    patch = Patch(*config.autoencoder.strides)
    patches = causal_vae.group_frames(crops_BTYXC, True, patch)
    mean, log_variance, _ = causal_vae.moments(weights, patches, None, config.autoencoder)
    noise = jax.vmap(lambda key: jax.random.normal(key, mean.shape[1:]))(keys_B)
    latents = mean + jnp.exp(log_variance / 2) * noise
    found, _ = causal_vae.reconstruct(weights, latents, None, config.autoencoder)
    frames_BTYXC = causal_vae.ungroup_frames(found, True, patch)
    error = jnp.mean((frames_BTYXC - crops_BTYXC) ** 2)
    kl = jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance) / 2
    loss, parts = error + config.autoencoder.kl * kl, {"squared_error": error, "kl": kl}
    if config.autoencoder.edges:
        parts["edge_error"] = edge_error(frames_BTYXC, crops_BTYXC)
        loss += config.autoencoder.edges * parts["edge_error"]
    if config.autoencoder.perceptual:
        flat = [video_BTYXC.reshape(-1, *crops_BTYXC.shape[2:]) for video_BTYXC in (frames_BTYXC, crops_BTYXC)]
        parts["feature_distance"] = feature_distance(observer, *flat)
        loss += config.autoencoder.perceptual * parts["feature_distance"]
    return loss, parts


def edge_error(frames_BTYXC: jax.Array, true_BTYXC: jax.Array) -> jax.Array:
    """Mean absolute error of the differences between neighbouring pixels, over rows and over columns."""
    error = frames_BTYXC - true_BTYXC
    return (jnp.abs(jnp.diff(error, axis=2)).mean() + jnp.abs(jnp.diff(error, axis=3)).mean()) / 2


def make_train_step(config: Config, observer: Any = None) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The compiled step under the mesh in use: (state, crops_BTYXC uint8, rate) -> (state, metrics).

    Weights are whole on every device, which works on its own crops; gradients are averaged. observer as in `crop_loss`.
    """

    def step(
        state: TrainState, crops_BTYXC: jax.Array, rate: Any, observer: Any
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        def local(weights: Any, crops: jax.Array, number: jax.Array, observer: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(config.seed), number)
            first = jax.lax.axis_index(ROWS) * len(crops)  # noise belongs to the crop, not to the device
            keys = jax.vmap(lambda i: jax.random.fold_in(key, first + i))(jnp.arange(len(crops)))
            values = jax.value_and_grad(crop_loss, has_aux=True)(weights, crops, keys, config, observer)
            return jax.lax.pmean(values, ROWS)

        pixels = crops_BTYXC.astype(jnp.float32) / 127.5 - 1
        specs = (P(), rows_spec(crops_BTYXC.ndim), P(), P())
        averaged = jax.shard_map(local, in_specs=specs, out_specs=P(), check_vma=False)
        (loss, parts), grads = averaged(state.params, pixels, state.step, observer)
        optimizer = make_optimizer(config, state.params)
        updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
        params = optax.apply_updates(state.params, jax.tree.map(lambda update: -rate * update, updates))
        decay = jnp.minimum(config.optimizer.ema, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        norm = optax.tree.norm(grads)
        kept = keep_finite(loss, norm, (params, average, optimizer_state), (state.params, state.ema, state.optimizer))
        return TrainState(state.step + 1, *kept), {"loss": loss, "grad_norm": norm, **parts}

    program = jax.jit(step, donate_argnums=0)
    return lambda state, crops_BTYXC, rate: program(state, crops_BTYXC, rate, observer)
