"""Validation loss: fixed noise, fixed quantiles of time, every example once; by time, mode, size and duration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vdit.batch import PackedBatch, generated_part
from vdit.config import Config, Modes
from vdit.diffusion import conditioning, corruption
from vdit.diffusion.loss import denoising_loss
from vdit.errors import UserError
from vdit.evaluation.intervals import bootstrap_mean
from vdit.parallel import peers
from vdit.parallel.mesh import process_allgather, row_reader, to_global
from vdit.parallel.rowwise import sum_of_segments
from vdit.training.run import Run

QUANTILES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Quantiles of the training distribution of times at which the loss is measured, for each clip's own shift."""

MODES = ("text", "two_groups")
"""Modes that are measured where they are trained: nothing given, and the first two groups given."""

NOISE_SEED = 20_24

_compiled: dict[Any, Any] = {}


@dataclasses.dataclass(frozen=True)
class ExampleLosses:
    """Loss of every example at every quantile of time and mode.

    G counts the modes that were measured.

    Attributes:
      modes: their names.
      error_EGT: mean squared error of the velocity over the example's patches that carry loss.
      count_EG: patches that carry loss.
      grid_E3: patch grids.
    """

    modes: tuple[str, ...]
    error_EGT: np.ndarray
    count_EG: np.ndarray
    grid_E3: np.ndarray

    def summary(self) -> dict[str, Any]:
        """The loss with its 95% interval over examples, and the same by time, mode, size and duration.

        The loss is the mean over times and modes of the patch-weighted mean over examples.
        """
        weight_EG1 = self.count_EG[..., None]
        per_mode_GT = (self.error_EGT * weight_EG1).sum(0) / np.maximum(weight_EG1.sum(0), 1)
        example_E = (self.error_EGT.mean(-1) * self.count_EG).sum(1)
        interval = bootstrap_mean(example_E, self.count_EG.sum(1))
        spatial_E = self.grid_E3[:, 1] * self.grid_E3[:, 2]
        return {
            "loss": float(per_mode_GT.mean()),
            "loss_interval": [float(x - interval.mean + per_mode_GT.mean()) for x in interval.interval],
            "by_time_quantile": {str(t): float(x) for t, x in zip(QUANTILES, per_mode_GT.mean(0), strict=True)},
            "by_mode": {mode: float(x) for mode, x in zip(self.modes, per_mode_GT.mean(1), strict=True)},
            "by_spatial_patches": self._buckets(spatial_E),
            "by_groups": self._buckets(self.grid_E3[:, 0]),
            "examples": len(self.grid_E3),
        }

    def _buckets(self, key_E: np.ndarray) -> dict[str, float]:
        """Loss by quartile of a size, keyed by the range of the size."""
        edges = np.unique(np.quantile(key_E, (0, 0.25, 0.5, 0.75), method="nearest"))
        bucket_E = np.searchsorted(edges, key_E, side="right") - 1
        out = {}
        for bucket in np.unique(bucket_E):
            chosen = bucket_E == bucket
            name = f"{key_E[chosen].min()}-{key_E[chosen].max()}"
            count = self.count_EG[chosen]
            out[name] = float((self.error_EGT[chosen].mean(-1) * count).sum() / max(count.sum(), 1))
        return out


def make_evaluate(graph: Any, config: Config) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Compiled (params, batch, quantile, mode) -> (sum of errors, patches that carry loss) of every example, _BN."""

    def evaluate(params: Any, batch: PackedBatch, quantile: jax.Array, mode: jax.Array) -> tuple[jax.Array, jax.Array]:
        clean = generated_part(batch, config.model.condition)
        inputs = corruption.validation_inputs(clean, jax.random.key(NOISE_SEED), quantile, mode, config.diffusion)
        error_BL, _ = denoising_loss(graph, params, batch, inputs, config)
        size = batch.grid_BN3.shape[1]

        error_BN, count_BN = (
            sum_of_segments(values_BL, batch.segments_BL, size) for values_BL in (error_BL, inputs.loss_mask_BL)
        )
        return error_BN, count_BN

    return jax.jit(evaluate)


def measured_modes(modes: Modes) -> tuple[str, ...]:
    """The modes that a model's validation loss is the mean of: `MODES` as far as trained, else all that are."""
    trained = tuple(name for name in conditioning.MODES if getattr(modes, name))
    return tuple(name for name in MODES if name in trained) or trained


def validate(
    evaluate: Callable[..., Any],
    params: Any,
    batches: Iterable[PackedBatch],
    mesh: Any,
    modes: Sequence[str] = MODES,
    progress: Callable[[int], None] = lambda examples: None,
) -> ExampleLosses:
    """Runs a compiled `make_evaluate` over all batches, quantiles and modes; calls `progress` with examples done."""
    numbers = [np.int32(conditioning.MODES.index(mode)) for mode in modes]
    errors, counts, grids = [], [], []
    for local in batches:
        batch = to_global(local, mesh)
        results = [[evaluate(params, batch, t, mode) for t in QUANTILES] for mode in numbers]
        sums_GTBN = np.array([[process_allgather(error) for error, _ in row] for row in results])
        counts_GBN = np.array([process_allgather(row[0][1]) for row in results])
        grid_BN3 = process_allgather(batch.grid_BN3)
        real_BN = grid_BN3[..., 0] > 0
        errors.append((sums_GTBN / np.maximum(counts_GBN, 1)[:, None])[:, :, real_BN])
        counts.append(counts_GBN[:, real_BN])
        grids.append(grid_BN3[real_BN])
        peers.alive()
        progress(int(real_BN.sum()))
    return ExampleLosses(
        tuple(modes), np.concatenate(errors, -1).transpose(2, 0, 1), np.concatenate(counts, -1).T, np.concatenate(grids)
    )


Batches = Callable[[int, int], Iterable[PackedBatch]]
"""(part, parts) -> batches that hold every example of a split once, see `data.TrainingData.validation`."""


def evaluate_run(
    run: Run, splits: Mapping[str, Batches], progress: Callable[[int], None] = lambda examples: None
) -> dict[str, Any]:
    """Validation loss of a run's averaged parameters on each held-out split; that of val, or the first, is the loss.

    Args:
      run: opened.
      splits: batches by split.
      progress: called with the number of examples that have just been done.

    Raises:
      UserError: if there is no split.
    """
    if not splits:
        path, trained = run.config.data.path, run.config.data.split
        raise UserError(f"{path} has no split but {trained}; nothing to validate on")
    out = {split: split_losses(run, batches, progress).summary() for split, batches in splits.items()}
    first = out.get("val") or next(iter(out.values()))
    return {"loss": first["loss"], "loss_interval": first["loss_interval"], **out}


def split_losses(run: Run, batches: Batches, progress: Callable[[int], None] = lambda examples: None) -> ExampleLosses:
    """Loss of every example of a split."""
    config = run.config
    key = config.model, config.diffusion, run.mesh, run.shape
    graph, params = run.averaged()
    if key not in _compiled:  # shared by runs in one process that differ in data, length or schedule only
        _compiled[key] = make_evaluate(graph, config)
    rows = batches(*row_reader(run.mesh))
    return validate(_compiled[key], params, rows, run.mesh, measured_modes(config.diffusion.modes), progress)
