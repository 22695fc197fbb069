"""How well clips are given back, by an autoencoder or whatever else stores and restores them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from etils import epath

from vdit.errors import UserError
from vdit.evaluation.clips import Clips
from vdit.evaluation.intervals import bootstrap_mean
from vdit.evaluation.metrics.distances import clip_features, paired_kernel
from vdit.evaluation.metrics.likeness import psnr, ssim
from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.models.autoencoders.registry import load_autoencoder
from vdit.parallel import peers

CHUNK = 8  # latent frames worked on at once
FRAME_INTERVAL = 4
"""Every so many frames of a clip are compared by the kernel distance."""


def reconstruction(
    autoencoder: Autoencoder,
    dataset: Clips,
    split: str,
    limit: int = 0,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Encodes and decodes every clip of a split.

    Args:
      autoencoder: of pixels.
      dataset: a data set of pixels whose clips fit its strides.
      split: of it.
      limit: first clips only; 0 = all.
      features: see `compare`.

    Returns:
      what `compare` says.

    Raises:
      UserError: if the data set holds latents, or a clip does not fit the strides.
    """
    if dataset.meta["autoencoder"]["name"] != "pixels":
        raise UserError(f"{dataset.path} holds latents; an autoencoder is measured on a data set of pixels")

    def pairs() -> Iterable[tuple[np.ndarray, np.ndarray]]:
        for i in range(min(limit or dataset.size(split), dataset.size(split))):
            true_TYXC = np.asarray(dataset.read_clip(split, i).video_TYXC)
            yield autoencoder.decode(autoencoder.encode(true_TYXC, CHUNK), CHUNK), true_TYXC
            peers.alive()

    return compare(pairs(), features)


def compare(
    pairs: Iterable[tuple[np.ndarray, np.ndarray]], features: Callable[[np.ndarray], np.ndarray] | None = None
) -> dict[str, Any]:
    """Measures of clips against the true ones, over all of them and by size.

    Args:
      pairs: (video_TYXC, true_TYXC) uint8 of each clip.
      features: of frames, for the kernel distance (see `efficientnet.load_features`); None leaves that out.

    Returns:
      squared_error per pixel value in [-1, 1] over all frames; psnr (dB), the mean over all frames of each frame's;
      clip_psnr and ssim, means over clips of the mean of a clip's frames, with intervals over clips; total_psnr, the
      PSNR of the squared error; kernel_distance between the clips and the true ones, if there are two at least; the
      same by size.
    """
    found: dict[str, list[_Clip]] = defaultdict(list)
    for video_TYXC, true_TYXC in pairs:
        seen = None
        if features is not None:
            seen = clip_features([video_TYXC, true_TYXC], FRAME_INTERVAL, features)
        size = f"{true_TYXC.shape[2]}x{true_TYXC.shape[1]}"
        found[size].append(_Clip(video_TYXC, true_TYXC, seen))
    every = [clip for clips in found.values() for clip in clips]
    return {**_summary(every), "by_size": {size: _summary(clips) for size, clips in sorted(found.items())}}


class _Clip:
    """What is kept of a clip: PSNR of its frames, their squared errors, mean SSIM, and features of both videos."""

    def __init__(self, video_TYXC: np.ndarray, true_TYXC: np.ndarray, features: list[np.ndarray] | None):
        difference = (video_TYXC.astype(np.float32) - true_TYXC) / 127.5
        self.errors_T = (difference**2).mean((1, 2, 3), dtype=np.float64)
        self.psnr_T = psnr(video_TYXC, true_TYXC)
        self.ssim = float(ssim(video_TYXC, true_TYXC).mean())
        self.features = features


def _summary(clips: list[_Clip]) -> dict[str, Any]:
    error = float(np.concatenate([clip.errors_T for clip in clips]).mean())
    out: dict[str, Any] = {
        "clips": len(clips),
        "frames": sum(len(clip.errors_T) for clip in clips),
        "squared_error": error,
        "psnr": float(np.concatenate([clip.psnr_T for clip in clips]).mean()),
        "total_psnr": float(10 * np.log10(4 / max(error, 1e-12))),
    }
    for name, values in (
        ("clip_psnr", [clip.psnr_T.mean() for clip in clips]),
        ("ssim", [clip.ssim for clip in clips]),
    ):
        out[name], out[f"{name}_interval"] = bootstrap_mean(np.array(values))
    features = [clip.features for clip in clips if clip.features is not None]
    if len(features) > 1:
        out["kernel_distance"] = paired_kernel([pair[0] for pair in features], [pair[1] for pair in features])
    return out


def evaluate_autoencoder(
    workdir: epath.PathLike,
    dataset: Clips,
    trained: str,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Any]:
    """Reconstruction of the splits that were not trained on; the loss of each is the squared error.

    Args:
      workdir: where a run has left its autoencoder.
      dataset: of pixels.
      trained: the split it was trained on.
      features: see `reconstruction`.

    Returns:
      what `reconstruction` says of each split, with its "loss"; "loss" is that of the first.

    Raises:
      UserError: if there is no other split, or no autoencoder.
    """
    others = [split for split in dataset.splits if split != trained]
    if not others:
        raise UserError(f"{dataset.path} has no split but {trained}; set train.evaluate_every=-1")
    autoencoder = load_autoencoder(f"causal_vae:{workdir}")
    found = {split: reconstruction(autoencoder, dataset, split, features=features) for split in others}
    out = {split: {"loss": values["squared_error"], **values} for split, values in found.items()}
    return {"loss": out[others[0]]["loss"], **out}
