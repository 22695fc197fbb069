"""The train step: a pure function of (state, batch, rate). What one step computes can be read here in full."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vdit import flops
from vdit.batch import PackedBatch
from vdit.config import Config
from vdit.data import Interface
from vdit.diffusion.loss import loss_and_gradients
from vdit.models import adapters
from vdit.models.transformer import SpacetimeTransformer
from vdit.models.wan.wan_dit import WanTransformer
from vdit.parallel.rowwise import sum_of_segments
from vdit.training.optimization.optimizer import make_optimizer, rate_multipliers

NETWORKS = {"spacetime": SpacetimeTransformer, "wan": WanTransformer}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that a step changes.

    Attributes:
      step: int32, steps taken.
      params: nnx.State of float32 parameters.
      ema: their exponential moving average, which is evaluated and sampled.
      optimizer: state of the optax chain.
      frozen: where params are adapters (config.lora), the weights at which they stand, which no step changes and no
        checkpoint holds; else ().
    """

    step: jax.Array
    params: Any
    ema: Any
    optimizer: Any
    frozen: Any = ()


def split_model(config: Config, interface: Interface) -> tuple[Any, Any, Any]:
    """(graph definition, parameters that are trained, those that are frozen or ()) of a fresh model.

    The parameters are born sharded over the mesh in use.
    """
    model = NETWORKS[config.model.family](config.model, interface, nnx.Rngs(params=config.seed))
    if not config.lora:
        return *nnx.split(model), ()
    adapters.attach(model, config.lora, config.model.family, config.seed)
    return adapters.split(model)


def frozen_weights(config: Config, interface: Interface, load: Callable[[Any], Any]) -> Any:
    """The weights at which the adapters of config.lora stand, over the mesh in use.

    Args:
      config, interface: of the run.
      load: gives the parameters of a model without adapters, from their shapes, dtypes and shardings.
    """
    assert config.lora
    lora, plain = config.lora, dataclasses.replace(config, lora=None)
    graph, state = abstract_state(plain, interface, jax.sharding.get_mesh())
    like = state.params if lora.base != "bfloat16" else adapters.as_dtype(state.params, jnp.bfloat16)

    def convert(params: Any) -> Any:
        model = nnx.merge(graph, params)
        adapters.attach(model, lora, config.model.family, config.seed)
        return adapters.split(model)[2]

    return jax.jit(convert, donate_argnums=() if lora.base == "int8" else 0)(load(like))


def init_state(config: Config, interface: Interface) -> tuple[Any, TrainState]:
    """(graph definition, state at step 0), computed on the devices of the mesh in use; without frozen weights."""
    graphs, init = _initialiser(config, interface)
    # The program runs once: on CPU, LLVM's optimisation takes longer (6 of 9 s) than it saves.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    state = jax.jit(lambda: dataclasses.replace(init(), frozen=()), compiler_options=options)()
    return graphs[0], state


def abstract_state(config: Config, interface: Interface, mesh: jax.sharding.Mesh) -> tuple[Any, TrainState]:
    """(graph definition, shapes and shardings of the state) under the mesh in use; compiles and computes nothing."""
    graphs, init = _initialiser(config, interface)

    def place(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        spec = x.sharding.spec if x.sharding else P()
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    state = jax.tree.map(place, jax.eval_shape(init))
    return graphs[0], state


def _initialiser(config: Config, interface: Interface) -> tuple[list[Any], Callable[[], TrainState]]:
    """A function that makes the state at step 0, and the list into which it puts the graph definition."""
    optimizer = make_optimizer(config.optimizer)
    graphs: list[Any] = []

    def init() -> TrainState:
        graph, params, frozen = split_model(config, interface)
        graphs.append(graph)
        return TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params), frozen)

    return graphs, init


def keep_finite(loss: jax.Array, norm: jax.Array, new: Any, old: Any) -> Any:
    """`new` where loss and the norm of the gradient are finite, else `old`, leaf by leaf."""
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)


def make_train_step(graph: Any, config: Config) -> Callable[..., tuple[TrainState, dict[str, jax.Array]]]:
    """The compiled step (state, batch, rate) -> (state, metrics); the state is donated.

    The learning rate is an argument, so a trunk and its cool-down branches share one program.
    """
    optimizer = make_optimizer(config.optimizer)
    ema, lora = config.optimizer.ema, config.lora

    def step(state: TrainState, batch: PackedBatch, rate: jax.Array) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)

        def complete(params: Any) -> Any:
            return nnx.merge_state(adapters.drop_inputs(params, key, lora.dropout), state.frozen) if lora else params

        loss, grads = loss_and_gradients(graph, state.params, batch, key, config, complete)
        with jax.named_scope("optimizer"):
            updates, optimizer_state = optimizer.update(grads, state.optimizer, state.params)
            scale = rate_multipliers(state.params, config.model, config.optimizer)
            updates = jax.tree.map(lambda update, s: -rate * s * update, updates, scale)
            params = optax.apply_updates(state.params, updates)
        # Early on the average would mostly remember the initial weights.
        decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
        average = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.ema, params)
        norm = optax.tree.norm(grads)
        params, average, optimizer_state = keep_finite(
            loss, norm, (params, average, optimizer_state), (state.params, state.ema, state.optimizer)
        )
        new = TrainState(state.step + 1, params, average, optimizer_state, state.frozen)
        return new, {"loss": loss, "grad_norm": norm, **consumed(batch, config)}

    return jax.jit(step, donate_argnums=0)


def consumed(batch: PackedBatch, config: Config) -> dict[str, jax.Array]:
    """What a batch holds: patches, caption tokens, examples, and the pairs of tokens that attend to each other."""

    def per_example(slots_BL: jax.Array) -> jax.Array:
        return sum_of_segments(slots_BL.astype(jnp.float32), batch.segments_BL, batch.grid_BN3.shape[1])

    patches_BN, text_BN = per_example(batch.is_patch_BL), per_example(batch.text_index_BL >= 0)
    return {
        "patches": batch.is_patch_BL.sum(),
        "text": (batch.text_index_BL >= 0).sum(),
        "examples": (batch.grid_BN3[..., 0] > 0).sum(),
        "attention_pairs": flops.attending_pairs(config.model.family == "wan", patches_BN, text_BN).sum(),
    }
