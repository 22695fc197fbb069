"""The run of a causal_vae: trained on crops of clips; what it learned is left in the workdir's autoencoder/."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
from etils import epath
from jax.experimental import multihost_utils

from vdit.config import Config
from vdit.data import CropData, TrainingData
from vdit.errors import UserError
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import EXPORT, read_causal_vae, save_causal_vae
from vdit.models.features import efficientnet
from vdit.patches import Patch
from vdit.training.autoencoder.step import init_state, make_train_step
from vdit.training.recovery.checkpoint import Checkpoints, Position
from vdit.training.run import Step
from vdit.training.step import TrainState

SCALE_CROPS = 64
"""Crops over which the mean and deviation of the latents are taken."""


@dataclasses.dataclass
class AutoencoderRun:
    """An autoencoder run opened for training; attributes as those of `run.Run`, and its data."""

    config: Config
    workdir: epath.Path
    mesh: jax.sharding.Mesh
    state: TrainState
    position: Position
    data: CropData

    @property
    def training_flops(self) -> float:
        """FLOPs spent so far: six for every multiply-add of the convolutions and linear maps, for every patch seen."""
        shapes = causal_vae.shapes(self.config.autoencoder)
        return 6.0 * self.position.patches * sum(int(np.prod(shape)) for shape in shapes.values() if len(shape) > 1)

    @property
    def parameters(self) -> tuple[int, int]:
        count = sum(int(leaf.size) for leaf in jax.tree.leaves(self.state.params))
        return count, count

    def train_step(self) -> Step:
        """The compiled step, with the crops and patches that it has seen among its metrics."""
        config = self.config
        examples = config.data.rows_per_step
        patches = examples * Patch(*config.autoencoder.strides).grid(*config.autoencoder.crop).tokens
        observer = efficientnet.load_weights() if config.autoencoder.perceptual else None
        step = make_train_step(config, observer)

        def counted(*arguments: Any) -> Any:
            state, metrics = step(*arguments)
            return state, {**metrics, "patches": patches, "examples": examples}

        return counted

    def export(self) -> None:
        """Writes the averaged weights, with the scale of their latents over the first crops."""
        config = self.config.autoencoder
        patch = Patch(*config.strides)
        weights = jax.tree.map(np.asarray, self.state.ema)

        @jax.jit
        def latents(weights: Any, crop_BTYXC: jax.Array) -> jax.Array:
            patches = causal_vae.group_frames(crop_BTYXC, True, patch)
            return causal_vae.moments(weights, patches, None, config)[0]

        crops = self.data.sample(SCALE_CROPS)
        found = [np.asarray(latents(weights, crop[None].astype(np.float32) / 127.5 - 1)) for crop in crops]
        flat = np.concatenate(found).reshape(-1, config.channels)
        if jax.process_index() == 0:
            save_causal_vae(Path(self.workdir) / EXPORT, weights, config, flat.mean(0), flat.std(0))
        if jax.process_count() > 1:  # all may read it now
            multihost_utils.sync_global_devices("exported")


def open_autoencoder(
    config: Config, workdir: epath.Path, data: TrainingData, mesh: jax.sharding.Mesh
) -> AutoencoderRun:
    """At the newest checkpoint, or at the weights of config.init_from, or the principal components of the data.

    Raises:
      UserError: if the data are not crops, or a checkpoint or the weights of init_from do not fit.
    """
    if not isinstance(data, CropData):
        raise UserError("an autoencoder is trained on crops (vdit.data.CropData), not on packed rows")
    with Checkpoints(workdir, config.train, create=False) as checkpoints:
        if checkpoints.latest is None:
            if config.init_from:
                weights = read_causal_vae(config.init_from, config.autoencoder)
            else:
                basis = data.components(config.autoencoder.channels)
                weights = causal_vae.initial_weights(config.autoencoder, config.seed, basis)
            return AutoencoderRun(config, workdir, mesh, init_state(config, weights), Position(), data)
        empty = {name: np.zeros(shape, np.float32) for name, shape in causal_vae.shapes(config.autoencoder).items()}
        like = init_state(config, jax.tree.map(jax.numpy.asarray, empty))
        found = checkpoints.restore_newest(like)
        assert found is not None
        return AutoencoderRun(config, workdir, mesh, *found, data)
