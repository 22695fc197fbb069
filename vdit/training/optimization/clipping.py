"""Clipping a gradient: by a fixed norm, and by what its norm has been of late."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vdit.config import OptimizerConfig

DECAY, WARMUP = 0.97, 25
"""Of the statistics, as in the paper: their memory, and the steps before anything is clipped."""


def clipping(config: OptimizerConfig) -> list[optax.GradientTransformation]:
    """What is done to a gradient before Adam sees it."""
    adaptive = [adaptive_clip(config.adaptive_clip)] if config.adaptive_clip else []
    return [*adaptive, optax.clip_by_global_norm(config.clip)]


class NormStatistics(NamedTuple):
    """Steps seen, and the running mean and variance of the (clipped) norms; scalars."""

    seen: jax.Array
    mean: jax.Array
    variance: jax.Array


def adaptive_clip(deviations: float) -> optax.GradientTransformation:
    """Scales down a gradient whose norm is more than `deviations` standard deviations above its running mean.

    A norm of z > deviations becomes that of deviations^2 / z, so the larger the spike, the less is left of it, and it
    enters the statistics as clipped (ZClip: Kumar et al. 2025, arXiv 2504.02507, section 3).
    """

    def init(params: Any) -> NormStatistics:
        del params
        # Three arrays, not one thrice: the step donates them.
        return NormStatistics(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.float32), jnp.zeros((), jnp.float32))

    def update(grads: Any, state: NormStatistics, params: Any = None) -> tuple[Any, NormStatistics]:
        del params
        norm = optax.tree.norm(grads).astype(jnp.float32)
        deviation = jnp.sqrt(state.variance)
        z = (norm - state.mean) / jnp.maximum(deviation, 1e-12)
        spike = (z > deviations) & (state.seen >= WARMUP)
        bounded = jnp.where(spike, state.mean + deviations**2 / z * deviation, norm)
        scale = jnp.where(spike, bounded / norm, 1.0)
        decay = jnp.minimum(DECAY, state.seen / (state.seen + 1))  # a plain mean at first
        mean = decay * state.mean + (1 - decay) * bounded
        variance = decay * (state.variance + (1 - decay) * (bounded - state.mean) ** 2)
        grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        return grads, NormStatistics(state.seen + 1, mean, variance)

    return optax.GradientTransformation(init, update)
