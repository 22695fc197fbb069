"""A run opened from its workdir: its devices, model, state and place in the data."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from etils import epath

from vdit import flops
from vdit.config import SIBLING, Config
from vdit.data import Interface, TrainingData, interface_of
from vdit.errors import UserError
from vdit.models import adapters
from vdit.models.transformer import parameter_counts
from vdit.parallel.mesh import make_mesh, use_mesh
from vdit.training.initial import check_latents, load_params, named, of_weights
from vdit.training.record.workdir import diffusion_of
from vdit.training.recovery.checkpoint import Checkpoints, Position
from vdit.training.recovery.checksums import checksums
from vdit.training.step import TrainState, abstract_state, frozen_weights, init_state, make_train_step

Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]
"""A compiled step: (state, batch, rate) -> (state, metrics)."""

_compiled_steps: dict[Any, Step] = {}


class Trainable(Protocol):
    """What the training loop trains: the model of videos (`Run`) or an autoencoder (`autoencoder.AutoencoderRun`)."""

    config: Config
    workdir: epath.Path
    mesh: jax.sharding.Mesh
    state: TrainState
    position: Position

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far."""
        ...

    @property
    def parameters(self) -> tuple[int, int]:
        """Numbers of parameters: without those of the input and output, and all."""
        ...

    def train_step(self) -> Step:
        """The compiled step; its metrics have "loss" and "grad_norm", and may have what `Position` counts."""
        ...

    def export(self) -> None:
        """Leaves in the workdir what is used of the run beside its checkpoints; before evaluations and at the end."""
        ...


@dataclasses.dataclass
class Run:
    """A run of a model of videos.

    Attributes:
      config, workdir: what and where.
      meta: description of the data set it is trained on.
      mesh: mesh over all devices.
      graph: graph definition of the model; with config.lora, of the model with adapters.
      state: current state.
      position: its place in the data.
      shape: sizes that decide its FLOPs.
    """

    config: Config
    workdir: epath.Path
    meta: Any
    mesh: jax.sharding.Mesh
    graph: Any
    state: TrainState
    position: Position
    shape: flops.ModelShape

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far, counted from the segments seen."""
        p = self.position
        return flops.training_flops_of_sums(self.shape, p.patches, p.text, p.attention_pairs, p.examples)

    @property
    def parameters(self) -> tuple[int, int]:
        return parameter_counts(self.state.frozen or self.state.params)

    def averaged(self) -> tuple[Any, Any]:
        """(graph definition, averaged parameters) of the model that is evaluated and sampled, without adapters."""
        return self.without_adapters(self.state.ema)

    def without_adapters(self, params: Any) -> tuple[Any, Any]:
        """(graph definition, parameters) of the model: `params`, or with config.lora the base with them added."""
        if not self.config.lora:
            return self.graph, params
        with use_mesh(self.mesh):
            return adapters.merged(self.graph, params, self.state.frozen, self.config.model)

    def train_step(self) -> Step:
        """The compiled step, shared by runs in one process that differ in data, length or schedule only."""
        config = self.config
        rate = config.optimizer.learning_rate
        muon = config.optimizer.muon_rate / rate if rate else 0.0  # the program knows the ratio
        optimizer = dataclasses.replace(config.optimizer, learning_rate=0, muon_rate=muon, warmup=0, cooldown=0)
        key = config.seed, config.model, config.lora, config.diffusion, optimizer, self.mesh, self.shape
        if key not in _compiled_steps:
            _compiled_steps[key] = make_train_step(self.graph, config)
        return _compiled_steps[key]

    def export(self) -> None:
        """Nothing: its checkpoints are all that is used."""


def complete_config(config: Config, workdir: epath.Path, data: TrainingData) -> Config:
    """The config with what its weights (init_from) and its data decide."""
    config = of_weights(config, workdir)
    began = diffusion_of(workdir) if config.train.accept_new_data else None  # with what the data were then
    mean, std = config.diffusion.mean, config.diffusion.input_std
    if not mean:
        mean = began.mean if began else data.mean()
    if std < 0:
        std = began.input_std if began else data.std(mean)
    return dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, mean=mean, input_std=std))


def open_run(
    config: Config, workdir: epath.PathLike, meta: Any, step: int | None = None, mesh: jax.sharding.Mesh | None = None
) -> Run:
    """Makes the model and restores the newest checkpoint (or that of `step`), the trunk's, or starts afresh.

    A fresh start takes the parameters of config.init_from, if given, with a fresh optimiser.

    Args:
      config, workdir: of the run.
      meta: description of its data, see `data.TrainingData`.
      step: checkpoint to restore; None = the newest.
      mesh: that of the run; None makes it.

    Raises:
      UserError: if a checkpoint cannot be restored, `step` has none, or init_from does not fit the model.
    """
    mesh = mesh or make_mesh(config.mesh)
    workdir = epath.Path(workdir)
    interface = interface_of(meta)
    with use_mesh(mesh), Checkpoints(workdir, config.train, create=False) as checkpoints:
        if step is not None or checkpoints.latest is not None:
            graph, like = _abstract(config, interface, mesh)
            found = checkpoints.restore_newest(like) if step is None else checkpoints.restore(like, step)
            assert found is not None
            state, position = found
        elif config.train.branch_from:
            graph, like = _abstract(config, interface, mesh)
            state, position = _leave_trunk(config, like, workdir)
        else:
            graph, state = init_state(config, interface)
            position = Position()
            if config.init_from:
                check_latents(config.init_from, meta)
            if config.lora:
                state = dataclasses.replace(state, frozen=_base(config, interface))
                position.base = _checksum(state.frozen)
            elif config.init_from:
                params = load_params(config.init_from, config, interface, state.params)
                # The step donates its state, so no two parts of it may share memory.
                state = dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params))
    if config.lora and position.base != _checksum(state.frozen):
        raise UserError(
            f"init_from={config.init_from} holds other weights than when {workdir} began; "
            "adapters fit only those at which they were trained"
        )
    shape = flops.shape_of(config.model, interface.patch, interface.text, config.lora)
    return Run(config, workdir, meta, mesh, graph, state, position, shape)


def _abstract(config: Config, interface: Interface, mesh: jax.sharding.Mesh) -> tuple[Any, TrainState]:
    """(graph definition, shapes and shardings of the state, with the frozen weights themselves)."""
    graph, like = abstract_state(config, interface, mesh)
    return graph, dataclasses.replace(like, frozen=_base(config, interface)) if config.lora else like


def _base(config: Config, interface: Interface) -> Any:
    return frozen_weights(config, interface, lambda like: load_params(config.init_from, config, interface, like))


def _checksum(frozen: Any) -> int:
    """One number that changes with the frozen weights, and not with the mesh."""
    return zlib.crc32(json.dumps(checksums(named(frozen)), sort_keys=True).encode())


def _leave_trunk(config: Config, like: TrainState, workdir: epath.Path) -> tuple[TrainState, Position]:
    """The trunk's state where the cool-down begins."""
    start, where = config.train.steps - config.optimizer.cooldown, config.train.branch_from
    beside = workdir.parent / where.removeprefix(SIBLING) if where.startswith(SIBLING) else where
    with Checkpoints(beside, config.train, create=False) as trunk:
        state, position = trunk.restore(like, start)
    read = position.next_row - sum(end - first for first, end in position.skipped)
    ours, theirs = config.data.rows_per_step, read / max(1, start)
    if ours != theirs:
        raise UserError(f"train.branch_from={config.train.branch_from} has data.rows_per_step={theirs:g}, not {ours}")
    return state, position
