"""How well an autoencoder gives clips back."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from data_pipelines.store import Dataset
from vdit.evaluation.intervals import bootstrap_mean
from vdit.evaluation.likeness import psnr, ssim
from vdit.models.autoencoder import Autoencoder

CHUNK = 8  # latent frames worked on at once


def reconstruction(autoencoder: Autoencoder, dataset: Dataset, split: str, limit: int = 0) -> dict[str, Any]:
    """Encodes and decodes every clip of a split.

    Args:
      autoencoder: of pixels.
      dataset: a data set of pixels whose clips fit its strides.
      split: of it.
      limit: first clips only; 0 = all.

    Returns:
      squared_error per pixel value in [-1, 1] over all frames; mean psnr (dB) and ssim of a clip's frames with their
      intervals over clips; the same by size.
    """
    errors, frames = 0.0, 0
    found: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for i in range(min(limit or dataset.size(split), dataset.size(split))):
        true_TYXC = dataset.read_clip(split, i).video_TYXC
        video_TYXC = autoencoder.decode(autoencoder.encode(true_TYXC, CHUNK), CHUNK)
        difference = (video_TYXC.astype(np.float32) - true_TYXC) / 127.5
        errors, frames = errors + float((difference**2).mean((1, 2, 3)).sum()), frames + len(true_TYXC)
        size = f"{true_TYXC.shape[2]}x{true_TYXC.shape[1]}"
        found[size].append((float(psnr(video_TYXC, true_TYXC).mean()), float(ssim(video_TYXC, true_TYXC).mean())))
    every = [values for clips in found.values() for values in clips]
    return {
        "squared_error": errors / frames,
        **_summary(every),
        "by_size": {size: _summary(values) for size, values in sorted(found.items())},
    }


def _summary(values: list[tuple[float, float]]) -> dict[str, Any]:
    out: dict[str, Any] = {"clips": len(values)}
    for name, column in zip(("psnr", "ssim"), np.array(values).T, strict=True):
        out[name], out[f"{name}_interval"] = bootstrap_mean(column)
    return out
