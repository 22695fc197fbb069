"""Opening a finished or running run from its workdir alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath

from vdit.data import interface_of
from vdit.errors import UserError
from vdit.generation import Generator, LatentGenerator
from vdit.generation.experts import share_times
from vdit.generation.generator import Progress
from vdit.models.adapters import add_all
from vdit.models.autoencoders.registry import load_autoencoder
from vdit.models.lora_files import read_lora
from vdit.models.wan.clip import load_image_encoder
from vdit.models.wan.wan_pipeline import ALL_TIMES, EXPERTS
from vdit.parallel.mesh import use_mesh
from vdit.patches import Patch
from vdit.training.export import open_weights
from vdit.training.initial import load_params, named, trained_times
from vdit.training.record.published import is_pipeline, on_this_backend, pipeline_meta
from vdit.training.record.workdir import is_export, read_config, read_meta
from vdit.training.recovery.checkpoint import checkpoint_steps
from vdit.training.run import Run, open_run


def load_run(workdir: epath.PathLike, step: int | None = None, data: str | None = None) -> Run:
    """The run of a workdir at its newest checkpoint, or at `step`, or of a folder that vdit.export wrote.

    The folder of a published Wan pipeline is taken too (see `published`).

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
        raise UserError(f"{workdir} has no checkpoint yet; train it with the command that is in its environment.json")
    return open_run(config, path, read_meta(path), step)


def generator_of(
    run: Run, progress: Progress | None = None, loras: Sequence[tuple[Path, float]] = (), partner: str = ""
) -> Generator | LatentGenerator:
    """A generator with the run's averaged parameters; of latents, with the autoencoder of its data.

    Args:
      run: opened.
      progress: called with (evaluations done, evaluations in all) of every call that has no other.
      loras: files of adapters that are added to the parameters, and how much of each.
      partner: where the other expert lies, if the run's model is one of two: a workdir, an export, or the folder of a
        published transformer. That of a published pipeline is found in its folder.

    Raises:
      UserError: if parameters are not finite, a file of adapters is of another model, the autoencoder or the other
        expert cannot be had, its weights are others than those that made the data, or the experts are not for all times
        together.
    """
    check_finite(run)
    graph, params = run.averaged()
    other = _partner(run, partner, params)
    for path, scale in loras:
        with use_mesh(run.mesh):
            params = add_all(params, read_lora(path, run.config.model), scale)
    patch, about = Patch(*run.meta["patch"]), run.meta["autoencoder"]
    latents = about["name"] != "pixels"
    channels = run.meta["channels"] - about.get("condition", 0)
    generator = Generator(graph, params, run.config, run.mesh, patch, channels, latents, progress, other)
    if not latents:
        return generator
    autoencoder = load_autoencoder(about["name"])
    if autoencoder.hash != about["hash"]:
        raise UserError(
            f"{about['name']} holds other weights than those that made the data of {run.workdir} (strides "
            f"{autoencoder.strides} and {autoencoder.channels} channels; its data have {tuple(about['strides'])} and "
            f"{run.meta['channels']}); put back the autoencoder of the data"
        )
    features = load_image_encoder(Path(run.workdir) / "image_encoder") if run.config.model.image else None
    return LatentGenerator(generator, autoencoder, features)


def _partner(run: Run, where: str, like: Any) -> Any:
    """Parameters of the other expert, laid out like `like`; None if its model is for all times."""
    own = tuple(run.config.diffusion.times)
    if own == ALL_TIMES:
        if where:
            raise UserError(
                f"--partner={where} is for one expert of two, and {run.workdir} is for all times; leave it out"
            )
        return None
    if not where and is_pipeline(run.workdir):
        where = str(run.workdir / EXPERTS[1])
    if not where:
        raise UserError(
            f"{run.workdir} holds one expert of two, for times {own}; sample it with "
            "--partner=FOLDER of the other one: a workdir, an export or a published transformer"
        )
    if not share_times(own, theirs := trained_times(where)):
        raise UserError(f"--partner={where} is for times {theirs}, {run.workdir} for {own}; they must add up to (0, 1)")
    with use_mesh(run.mesh):
        params = load_params(where, run.config, interface_of(run.meta), like)
    _require_finite(params, where)
    return params


def check_finite(run: Run) -> None:
    """Raises UserError if averaged parameters hold NaN or infinities: whatever they would make is black."""
    _require_finite(run.state.ema, f"{run.workdir} at step {run.position.step}")


def _require_finite(params: Any, where: str) -> None:
    bad = [name for name, good in named(jax.jit(_finite)(params)).items() if not good]
    if bad:
        raise UserError(
            f"the weights of {where} hold values that are NaN or infinite "
            f"({', '.join(bad[:3])}{' ...' * (len(bad) > 3)}); take an earlier --step, or train it again"
        )


def _finite(params: Any) -> Any:
    return jax.tree.map(lambda x: jnp.isfinite(x).all(), params)
