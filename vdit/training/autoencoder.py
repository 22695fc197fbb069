"""Training the causal_vae on crops of a data set of pixels; what it learned is left in the workdir's autoencoder/."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from data_pipelines.reading.components import principal_components
from data_pipelines.reading.crops import Crops, crop_batches
from data_pipelines.reading.store import Dataset
from vdit.config import Config
from vdit.errors import UserError
from vdit.evaluation.reconstruction import reconstruction
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import EXPORT, load_autoencoder, read_causal_vae, save_causal_vae
from vdit.models.features import efficientnet
from vdit.parallel.mesh import make_mesh, row_reader, row_shards, to_global, use_mesh
from vdit.patches import Patch
from vdit.training import workdir as workdirs
from vdit.training.autoencoder_step import init_state, make_train_step
from vdit.training.checkpoint import Checkpoints, Position
from vdit.training.divergence import go_past, persist
from vdit.training.drive import drive
from vdit.training.step import TrainState

SCALE_CROPS = 64
"""Crops over which the mean and deviation of the latents are taken."""


@dataclasses.dataclass
class AutoencoderRun:
    """An autoencoder run opened for training; attributes as those of `loop.Run`."""

    config: Config
    workdir: epath.Path
    state: TrainState
    position: Position

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far: six for every multiply-add of the convolutions and linear maps, for every patch seen."""
        shapes = causal_vae.shapes(self.config.autoencoder)
        return 6.0 * self.position.patches * sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) > 1)


def train_autoencoder(
    config: Config, workdir: epath.PathLike, progress: Callable[[dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Trains to config.train.steps, going on from the newest checkpoint if there is one; as `loop.train`.

    Raises:
      UserError: if config, data set and workdir do not go together.
      Preempted: after SIGTERM, once a checkpoint is saved.
    """
    dataset, workdir = Dataset(config.data.path), epath.Path(workdir)
    crops = Crops(dataset, config.data.split, config.autoencoder, config.seed)
    mesh = make_mesh(config.mesh)
    per_step = config.data.rows_per_step
    if per_step % row_shards(mesh):
        raise UserError(
            f"data.rows_per_step={per_step} is not a multiple of the {row_shards(mesh)} row shards of the mesh"
        )
    workdirs.check(workdir, config, dataset.meta)
    observer = efficientnet.load_weights() if config.autoencoder.perceptual else None

    def attempt() -> dict[str, Any]:
        with use_mesh(mesh), contextlib.ExitStack() as cleanup:
            run = _open(config, workdir, dataset)
            go_past(workdir, run.position)
            workdirs.claim(workdir, config, dataset.meta)
            batches = crop_batches(crops, per_step, run.position.next_row // per_step, *row_reader(mesh))
            placed = iter(batches.map(lambda batch: to_global(batch, mesh)))
            cleanup.callback(placed.close)
            step = _counting(make_train_step(config, observer), config)

            def evaluate() -> dict[str, Any]:
                _export(run, crops)
                return evaluate_autoencoder(run.workdir, dataset, config.data.split)

            final = drive(run, placed, step, evaluate, per_step, progress)
            if config.train.evaluate_every < 0:
                _export(run, crops)
        count = sum(int(leaf.size) for leaf in jax.tree.leaves(run.state.params))
        return {**final, "params": count, "params_total": count}

    def ids(rows: Sequence[int]) -> list[list[int]]:
        return [[crops.clip_id(*divmod(row, per_step))] for row in rows]

    return persist(attempt, workdir, config.train, ids)


def _open(config: Config, workdir: epath.Path, dataset: Dataset) -> AutoencoderRun:
    """At the newest checkpoint, or at the weights of config.init_from, or the principal components of the data."""
    patch = Patch(*config.autoencoder.strides)
    with Checkpoints(workdir, config.train, create=False) as checkpoints:
        if checkpoints.latest is None:
            if config.init_from:
                weights = read_causal_vae(config.init_from, config.autoencoder)
            else:
                basis = principal_components(dataset, config.data.split, patch, config.autoencoder.channels)
                weights = causal_vae.initial_weights(config.autoencoder, config.seed, basis)
            return AutoencoderRun(config, workdir, init_state(config, weights), Position())
        empty = {name: np.zeros(shape, np.float32) for name, shape in causal_vae.shapes(config.autoencoder).items()}
        like = init_state(config, jax.tree.map(jax.numpy.asarray, empty))
        found = checkpoints.restore_newest(like)
        assert found is not None
        return AutoencoderRun(config, workdir, *found)


def _counting(step: Callable[..., Any], config: Config) -> Callable[..., Any]:
    """The step, with what it has seen among its metrics."""
    examples = config.data.rows_per_step
    patches = examples * Patch(*config.autoencoder.strides).grid(*config.autoencoder.crop).tokens

    def counted(*arguments: Any) -> Any:
        state, metrics = step(*arguments)
        return state, {**metrics, "patches": patches, "examples": examples}

    return counted


def _export(run: AutoencoderRun, crops: Crops) -> None:
    """Writes the averaged weights, with the scale of their latents over the first crops."""
    config = run.config.autoencoder
    patch = Patch(*config.strides)
    video = np.stack([crops(0, number) for number in range(SCALE_CROPS)])
    weights = jax.tree.map(np.asarray, run.state.ema)

    @jax.jit
    def latents(weights: Any, crop_BTYXC: jax.Array) -> jax.Array:
        patches = causal_vae.group_frames(crop_BTYXC, True, patch)
        return causal_vae.moments(weights, patches, None, config)[0]

    found = [np.asarray(latents(weights, crop[None].astype(np.float32) / 127.5 - 1)) for crop in video]
    flat = np.concatenate(found).reshape(-1, config.channels)
    if jax.process_index() == 0:
        save_causal_vae(Path(run.workdir) / EXPORT, weights, config, flat.mean(0), flat.std(0))
    if jax.process_count() > 1:  # all may read it now
        multihost_utils.sync_global_devices("exported")


def evaluate_autoencoder(
    workdir: epath.PathLike,
    dataset: Dataset,
    trained: str,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Reconstruction of the splits that were not trained on, and the squared error of the first of them as the loss.

    Args:
      workdir: where a run has left its autoencoder.
      dataset: of pixels.
      trained: the split it was trained on.
      features: see `reconstruction`.

    Raises:
      UserError: if there is no other split, or no autoencoder.
    """
    others = [split for split in dataset.splits if split != trained]
    if not others:
        raise UserError(f"{dataset.path} has no split but {trained}; set train.evaluate_every=-1")
    autoencoder = load_autoencoder(f"causal_vae:{workdir}")
    out = {split: reconstruction(autoencoder, dataset, split, features=features) for split in others}
    return {"loss": out[others[0]]["squared_error"], **out}
