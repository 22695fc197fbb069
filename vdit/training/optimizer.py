"""AdamW under muP: one learning rate, stated at the base width, holds at every width."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import nnx

from vdit.config import ModelConfig, OptimizerConfig


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam and decoupled decay of matrices; the step multiplies by the learning rate."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(config.beta1, config.beta2, eps=1e-8),
        optax.add_decayed_weights(config.weight_decay, mask=lambda params: _by_role(params, lambda r: r == "hidden")),
    )


def rate_multipliers(params: Any, config: ModelConfig) -> Any:
    """Factor on the learning rate of every parameter, by its muP role (Yang et al. 2022, table 8, Adam).

    Hidden matrices take base_width / width; all others the rate itself (the output layer's 1 / width is in the model).
    """
    hidden = config.base_width / config.width
    return _by_role(params, lambda role: hidden if role == "hidden" else 1.0)


def _by_role(params: Any, value: Any) -> Any:
    """A tree like `params` with value(role) at every leaf."""
    is_param = lambda node: isinstance(node, nnx.Variable)  # noqa: E731
    return jax.tree.map(lambda p: p.replace(value(p.get_metadata()["role"])), params, is_leaf=is_param)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of step number `step` (from 0) in a run of `steps`: linear warm-up, constant, linear cool-down.

    Past the end of a cool-down the rate is 0.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cool = min(1.0, (steps - step) / config.cooldown) if config.cooldown else 1.0
    return config.learning_rate * warm * max(0.0, cool)
