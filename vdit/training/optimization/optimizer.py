"""AdamW, or Muon for the matrices of the blocks, under muP: a rate stated once holds at every width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import optax
from flax import nnx

from vdit.config import ModelConfig, OptimizerConfig
from vdit.training.optimization.clipping import clipping
from vdit.training.optimization.muon import scale_by_muon, shape_factor, uses_muon


def make_optimizer(config: OptimizerConfig) -> optax.GradientTransformation:
    """Clipping, Adam or Muon, and decoupled decay of matrices; the step multiplies by the learning rate."""

    def matrices(params: Any) -> Any:
        return _each(params, lambda param: param.get_metadata()["role"] == "matrix")

    def method(params: Any) -> Any:
        return _each(params, lambda param: "muon" if uses_muon(param) else "adam")

    direction = optax.scale_by_adam(config.beta1, config.beta2, eps=1e-8)
    if config.method == "muon":
        direction = optax.partition({"muon": scale_by_muon(), "adam": direction}, method)
    return optax.chain(
        *clipping(config),
        direction,
        optax.add_decayed_weights(config.weight_decay, mask=matrices),
    )


def rate_multipliers(params: Any, config: ModelConfig, optimizer: OptimizerConfig) -> Any:
    """Factor on the learning rate of every parameter (muP for Adam: Yang et al. 2022, table 8; Yang et al. 2023).

    An Adam step changes every weight by about the rate, so it changes the sum over a matrix's inputs by rate * fan_in.
    Matrices take base_width / fan_in, which keeps that change the same at every width and for every input; the output
    layer and vectors take the rate itself (the output's 1 / width is in the model). Matrices that are Muon's take
    muon_rate instead, times `muon.shape_factor`.
    """

    def multiplier(param: nnx.Variable) -> float:
        metadata = param.get_metadata()
        if optimizer.method == "muon" and uses_muon(param):
            return optimizer.muon_rate / optimizer.learning_rate * shape_factor(param)
        return config.base_width / metadata["fan_in"] if metadata["role"] == "matrix" else 1.0

    return _each(params, multiplier)


def _each(params: Any, value: Callable[[nnx.Variable], Any]) -> Any:
    """A tree like `params` with value(parameter) at every leaf."""
    return jax.tree.map(lambda p: p.replace(value(p)), params, is_leaf=lambda node: isinstance(node, nnx.Variable))


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Rate of step number `step` (from 0) in a run of `steps`: linear warm-up, constant, linear cool-down.

    Past the end of a cool-down the rate is 0.
    """
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    cool = min(1.0, (steps - step) / config.cooldown) if config.cooldown else 1.0
    return config.learning_rate * warm * max(0.0, cool)
