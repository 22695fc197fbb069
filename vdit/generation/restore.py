"""Opening a finished or running run from its workdir alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from vdit.errors import UserError
from vdit.generation import Generator, LatentGenerator
from vdit.generation.generator import Progress
from vdit.models.adapters import add_all
from vdit.models.autoencoders.registry import load_autoencoder
from vdit.models.lora_files import read_lora
from vdit.parallel.mesh import use_mesh
from vdit.patches import Patch
from vdit.training.export import open_weights
from vdit.training.initial import named
from vdit.training.record.published import is_pipeline, on_this_backend, pipeline_meta
from vdit.training.record.workdir import is_export, read_config, read_meta
from vdit.training.recovery.checkpoint import checkpoint_steps
from vdit.training.run import Run, open_run


def load_run(workdir: epath.PathLike, step: int | None = None, data: str | None = None) -> Run:
    """The run of a workdir at its newest checkpoint, or at `step`, or of a folder that vdit.export wrote.

    The folder of a published Wan 2.1 pipeline is taken too (see `published`).

    Args:
      workdir: its folder.
      step: checkpoint to load.
      data: data set directory, if not where it was.

    Raises:
      UserError: if the folder holds no run, or the run has no such checkpoint.
    """
    path = epath.Path(workdir)
    config = read_config(path)
    if data:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, path=data))
    if config.task == "autoencoder":
        raise UserError(f"{workdir} holds an autoencoder, not a model; train one on its latents (docs/latents.md)")
    if is_export(path) or is_pipeline(path):
        if step is not None:
            raise UserError(f"{workdir} holds the weights of one step; leave --step out")
        if is_export(path):
            return open_weights(config, path, read_meta(path))
        return open_weights(on_this_backend(config), path, pipeline_meta(path))
    if not checkpoint_steps(path):
        raise UserError(f"{workdir} has no checkpoint yet; train it with python -m vdit.train --workdir={workdir}")
    return open_run(config, path, read_meta(path), step)


def generator_of(
    run: Run, progress: Progress | None = None, loras: Sequence[tuple[Path, float]] = ()
) -> Generator | LatentGenerator:
    """A generator with the run's averaged parameters; of latents, with the autoencoder of its data.

    Args:
      run: opened.
      progress: called with (evaluations done, evaluations in all) of every call that has no other.
      loras: files of adapters that are added to the parameters, and how much of each.

    Raises:
      UserError: if parameters are not finite, a file of adapters is of another model, the autoencoder cannot be had, or
        its weights are others than those that made the data.
    """
    check_finite(run)
    graph, params = run.averaged()
    for path, scale in loras:
        with use_mesh(run.mesh):
            params = add_all(params, read_lora(path, run.config.model), scale)
    patch, about = Patch(*run.meta["patch"]), run.meta["autoencoder"]
    latents = about["name"] != "pixels"
    generator = Generator(graph, params, run.config, run.mesh, patch, run.meta["channels"], latents, progress)
    if not latents:
        return generator
    autoencoder = load_autoencoder(about["name"])
    if autoencoder.hash != about["hash"]:
        raise UserError(f"{about['name']} holds other weights than those that made the data of {run.workdir}")
    return LatentGenerator(generator, autoencoder)


def check_finite(run: Run) -> None:
    """Raises UserError if averaged parameters hold NaN or infinities: whatever they would make is black."""
    bad = [name for name, good in named(jax.jit(_finite)(run.state.ema)).items() if not good]
    if bad:
        raise UserError(
            f"the weights of {run.workdir} at step {run.position.step} hold values that are NaN or infinite "
            f"({', '.join(bad[:3])}{' ...' * (len(bad) > 3)}); take an earlier --step, or train it again"
        )


def _finite(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), params)
