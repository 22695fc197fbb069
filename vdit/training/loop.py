"""The training loop: data to steps to checkpoints and metrics. Exactly resumable after any step."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from data_pipelines.reading import pipeline
from data_pipelines.reading.mixture import Mixture, open_data
from data_pipelines.reading.store import Dataset
from vdit import flops
from vdit.batch import PackedBatch
from vdit.config import BESIDE, Config
from vdit.errors import UserError
from vdit.evaluation.validation import ExampleLosses, make_evaluate, validate
from vdit.models.transformer import Interface, parameter_counts
from vdit.parallel.mesh import make_mesh, row_reader, row_shards, to_global, use_mesh
from vdit.training import workdir as workdirs
from vdit.training.account import data_account, time_account
from vdit.training.checkpoint import Checkpoints, Position
from vdit.training.divergence import go_past, persist
from vdit.training.drive import drive
from vdit.training.initial import load_params, of_weights
from vdit.training.metrics import read_metrics
from vdit.training.step import TrainState, abstract_state, init_state, make_train_step

_compiled: dict[Any, Any] = {}


@dataclasses.dataclass
class Run:
    """A run opened for training, evaluation or sampling: its model, state and mesh.

    Attributes:
      config, workdir: what and where.
      meta: description of the data set it is trained on.
      graph: graph definition of the model.
      state: current state.
      position: its place in the data.
      mesh: mesh over all devices.
      shape: sizes that decide its FLOPs.
    """

    config: Config
    workdir: epath.Path
    meta: dict[str, Any]
    mesh: jax.sharding.Mesh
    graph: Any
    state: TrainState
    position: Position
    shape: flops.ModelShape

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far, counted from the segments seen."""
        p = self.position
        return flops.training_flops_of_sums(self.shape, p.patches, p.text, p.squares, p.examples)


def open_run(config: Config, workdir: epath.PathLike, meta: dict[str, Any], step: int | None = None) -> Run:
    """Makes the model and restores the newest checkpoint (or that of `step`), the trunk's, or starts afresh.

    A fresh start takes the parameters of config.init_from, if given, with a fresh optimiser.

    Raises:
      UserError: if a checkpoint cannot be restored, `step` has none, or init_from does not fit the model.
    """
    mesh = make_mesh(config.mesh)
    workdir = epath.Path(workdir)
    interface = interface_of(meta)
    with use_mesh(mesh), Checkpoints(workdir, config.train, create=False) as checkpoints:
        if step is not None or checkpoints.latest is not None:
            graph, like = abstract_state(config, interface, mesh)
            found = checkpoints.restore_newest(like) if step is None else checkpoints.restore(like, step)
            assert found is not None
            state, position = found
        elif config.train.branch_from:
            graph, like = abstract_state(config, interface, mesh)
            state, position = _leave_trunk(config, like, workdir)
        else:
            graph, state = init_state(config, interface)
            position = Position()
            if config.init_from:
                params = load_params(config.init_from, config, interface, state.params)
                # The step donates its state, so no two parts of it may share memory.
                state = dataclasses.replace(state, params=params, ema=jax.tree.map(jnp.copy, params))
    shape = flops.shape_of(config.model, interface.patch, interface.text)
    return Run(config, workdir, meta, mesh, graph, state, position, shape)


def _leave_trunk(config: Config, like: TrainState, workdir: epath.Path) -> tuple[TrainState, Position]:
    """The trunk's state where the cool-down begins."""
    start, where = config.train.steps - config.optimizer.cooldown, config.train.branch_from
    beside = workdir.parent / where.removeprefix(BESIDE) if where.startswith(BESIDE) else where
    with Checkpoints(beside, config.train, create=False) as trunk:
        state, position = trunk.restore(like, start)
    read = position.next_row - sum(end - first for first, end in position.skipped)
    ours, theirs = config.data.rows_per_step, read / max(1, start)
    if ours != theirs:
        raise UserError(f"train.branch_from={config.train.branch_from} has data.rows_per_step={theirs:g}, not {ours}")
    return state, position


def interface_of(meta: dict[str, Any]) -> Interface:
    """What the model must take, from a data set's description."""
    return Interface(int(np.prod(meta["patch"])) * meta["channels"], meta["text_encoder"]["width"])


def train(
    config: Config, workdir: epath.PathLike, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Trains to config.train.steps, going on from the newest checkpoint if there is one.

    Args:
      config: the run.
      workdir: where its checkpoints and metrics are; must be empty or of the same config.
      progress: called with each row of metrics.

    Returns:
      Totals of the run, and under "validation" its final evaluation (if config.train.evaluate_every >= 0).

    Raises:
      UserError: if config, data set and workdir do not go together.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    workdir = epath.Path(workdir)
    config, dataset, meta = prepare(config, workdir)
    workdirs.check(workdir, config, meta)

    def attempt() -> dict[str, Any]:
        run = open_run(config, workdir, meta)
        go_past(workdir, run.position)
        workdirs.claim(workdir, config, meta)  # only now: a mistake leaves no trace
        with use_mesh(run.mesh), contextlib.ExitStack() as cleanup:
            return _train(run, dataset, progress, cleanup)

    def ids(rows: Sequence[int]) -> list[np.ndarray]:
        plan = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed)
        return [dataset.index(config.data.split).id[plan.row(row).examples] for row in rows]

    return persist(attempt, workdir, config.train, ids)


def prepare(config: Config, workdir: epath.Path) -> tuple[Config, Dataset | Mixture, dict[str, Any]]:
    """(config, data set, its description) of a run: the config with what its data and weights decide.

    Raises:
      UserError: if config, devices and data set do not go together.
    """
    dataset = open_data(config.data)
    meta = {**dataset.meta, "fps": float(np.median(dataset.index(config.data.split).fps))}
    config = of_weights(config, workdir)
    if not config.diffusion.mean:
        mean = pipeline.channel_mean(dataset, config.data.split)
        config = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, mean=mean))
    if config.diffusion.input_std < 0:
        std = pipeline.data_std(dataset, config.data.split, config.diffusion.mean)
        config = dataclasses.replace(config, diffusion=dataclasses.replace(config.diffusion, input_std=std))
    _check(config, dataset)
    return config, dataset, meta


def _check(config: Config, dataset: Dataset | Mixture) -> None:
    """Raises UserError if config, devices and data set do not go together."""
    shards = row_shards(make_mesh(config.mesh))
    if config.data.rows_per_step % shards:
        raise UserError(
            f"data.rows_per_step={config.data.rows_per_step} is not a multiple of the {shards} row shards of the mesh"
        )
    if config.train.evaluate_every >= 0 and dataset.splits == (config.data.split,):
        raise UserError(
            f"{dataset.path} has no split but {config.data.split} to validate on; set train.evaluate_every=-1"
        )
    for kind in ("autoencoder", "text_encoder"):
        wanted, made = getattr(config.data, kind), dataset.meta[kind]["name"]
        if wanted and wanted != made:
            raise UserError(
                f"{dataset.path} was made with the {kind.replace('_', ' ')} {made}, not {wanted}; "
                f"build it again or set data.{kind}"
            )
    pipeline.make_plan(dataset, config.data, dataset.patch, config.seed).require_step()
    if config.train.evaluate_every >= 0:
        for split in set(dataset.splits) - {config.data.split}:
            pipeline.validation_plan(dataset, dataclasses.replace(config.data, split=split), dataset.patch)


def _train(
    run: Run,
    dataset: Dataset | Mixture,
    progress: Callable[[dict[str, Any]], None] | None,
    cleanup: contextlib.ExitStack,
) -> dict[str, Any]:
    config = run.config
    step_function, evaluate = _functions(run)
    place = functools.partial(to_global, mesh=run.mesh)
    start = run.position.next_row // config.data.rows_per_step
    batches = pipeline.rows(dataset, config.data, dataset.patch, config.seed, start, *row_reader(run.mesh), place=place)
    cleanup.callback(batches.close)
    look = functools.partial(evaluate_run, run, dataset, evaluate)
    final = drive(run, batches, step_function, look, config.data.rows_per_step, progress)
    body, total = parameter_counts(run.state.params)
    plan = pipeline.make_plan(dataset, config.data, dataset.patch, config.seed)
    return {
        **final,
        "params": body,
        "params_total": total,
        **data_account(plan, dataset.index(config.data.split), dataset.patch, run.position),
        **time_account(read_metrics(run.workdir)),
    }


def _functions(run: Run) -> tuple[Any, Any]:
    """The compiled step and evaluation; shared by runs in one process that differ in data, length or schedule only."""
    config = run.config
    key = (
        config.seed,
        config.model,
        config.diffusion,
        dataclasses.replace(config.optimizer, learning_rate=0, warmup=0, cooldown=0),
        run.mesh,
        run.shape,
    )
    if key not in _compiled:
        _compiled[key] = make_train_step(run.graph, config), make_evaluate(run.graph, config)
    return _compiled[key]


def evaluate_run(run: Run, dataset: Dataset | Mixture, evaluate: Any = None) -> dict[str, Any]:
    """Validation loss of the averaged parameters on every split but the training one."""
    evaluate = evaluate or _functions(run)[1]
    out: dict[str, Any] = {}
    for split in dataset.splits:
        if split != run.config.data.split:
            losses = split_losses(run, dataset, split, evaluate)
            out[split] = losses.summary()
    first = out.get("val") or next(iter(out.values()), None)
    if first is None:
        raise UserError(f"{dataset.path} has no split but {run.config.data.split}; nothing to validate on")
    return {"loss": first["loss"], "loss_interval": first["loss_interval"], **out}


def split_losses(run: Run, dataset: Dataset | Mixture, split: str, evaluate: Any) -> ExampleLosses:
    """Loss of every example of a split."""
    data = dataclasses.replace(run.config.data, split=split)
    batches: Iterator[PackedBatch] = pipeline.validation_rows(dataset, data, dataset.patch, *row_reader(run.mesh))
    return validate(evaluate, run.state.ema, batches, run.mesh)
