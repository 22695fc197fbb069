"""Principal components of the patches of a data set."""

from __future__ import annotations

import numpy as np

from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from vdit.models.autoencoders.causal_vae import PrincipalComponents
from vdit.patches import Patch, patchify

SAMPLE = 200_000
"""About as many patches are looked at: far more than a covariance of 768 numbers needs."""


def principal_components(dataset: Dataset | Mixture, split: str, patch: Patch, count: int) -> PrincipalComponents:
    """Components of every so-many-th patch of a split; the same ones whenever they are computed."""
    index = dataset.index(split)
    stride = max(
        1,
        int(
            (index.frames // patch.time + 1).astype(np.int64)
            @ ((index.height // patch.height).astype(np.int64) * (index.width // patch.width))
        )
        // SAMPLE,
    )
    total, square, number = np.zeros(patch.size()), np.zeros((patch.size(), patch.size())), 0
    for i in range(len(index)):
        video_TYXC = dataset.read_clip(split, i).video_TYXC
        frames = patch.floor_frames(len(video_TYXC))
        height, width = (
            side // step * step for side, step in zip(video_TYXC.shape[1:3], (patch.height, patch.width), strict=True)
        )
        patches_LP = patchify(np.asarray(video_TYXC[:frames, :height, :width]), patch)[i % stride :: stride]
        x_LP = patches_LP.astype(np.float64) / 127.5 - 1
        total, square, number = total + x_LP.sum(0), square + x_LP.T @ x_LP, number + len(x_LP)
    mean_P = total / number
    variance, vectors = np.linalg.eigh(square / number - np.outer(mean_P, mean_P))
    order = np.argsort(-variance)[:count]
    deviation_C = np.sqrt(np.maximum(variance[order], 1e-8))
    return PrincipalComponents(
        mean_P.astype(np.float32), vectors[:, order].astype(np.float32), deviation_C.astype(np.float32)
    )
