"""Random crops of clips, all of one size: what autoencoders are trained on.

Crop i of step s is a pure function of (data set, seed, s, i): reading may start anywhere, on any number of processes.
"""

from __future__ import annotations

import sys

import grain
import numpy as np

from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from vdit.autoencoder_config import AutoencoderConfig
from vdit.errors import UserError

CACHE_BYTES = 1 << 30
"""Clips stay in memory up to so many bytes: a crop is a small part of the record that it is read from."""


class Crops:
    """The crops of a split.

    Args:
      dataset: a data set of pixels, or several.
      split: of it.
      config: size and number of crops.
      seed: of all draws.

    Raises:
      UserError: if the data set holds latents, or no clip is as large as a crop.
    """

    def __init__(self, dataset: Dataset | Mixture, split: str, config: AutoencoderConfig, seed: int):
        if dataset.meta["autoencoder"]["name"] != "pixels":
            raise UserError(f"{dataset.path} holds latents; an autoencoder is trained on a data set of pixels")
        index = dataset.index(split)
        frames, height, width = config.crop
        fits = (index.frames >= frames) & (index.height >= height) & (index.width >= width)
        if not fits.any():
            raise UserError(
                f"no clip of split {split!r} of {dataset.path} has {frames} frames of {width}x{height}; "
                "lower autoencoder.crop"
            )
        self._clips = np.flatnonzero(fits)
        # Every frame of the data is as likely as any other to be seen.
        shares = index.frames[self._clips].astype(np.float64)
        self._ends = np.cumsum(shares) / shares.sum()
        self._ids = index.id
        self._dataset, self._split, self._crop, self._seed = dataset, split, config.crop, seed
        self._cache: dict[int, np.ndarray] = {}
        self._cached_bytes = 0

    def __call__(self, step: int, number: int) -> np.ndarray:
        """Crop `number` of a step, video_TYXC uint8; half of them mirrored."""
        clip, rng = self._draw(step, number)
        video_TYXC = self._read(clip)
        places = [int(rng.integers(have - want + 1)) for have, want in zip(video_TYXC.shape, self._crop, strict=False)]
        window = tuple(slice(place, place + want) for place, want in zip(places, self._crop, strict=True))
        crop_TYXC = video_TYXC[window]
        return np.ascontiguousarray(crop_TYXC[:, :, ::-1] if rng.integers(2) else crop_TYXC)

    def clip_id(self, step: int, number: int) -> int:
        """The id of the clip that crop `number` of a step is of."""
        return int(self._ids[self._draw(step, number)[0]])

    def _read(self, clip: int) -> np.ndarray:
        if (video_TYXC := self._cache.get(clip)) is None:
            video_TYXC = self._dataset.read_clip(self._split, clip).video_TYXC
            if self._cached_bytes + video_TYXC.nbytes <= CACHE_BYTES:
                self._cache[clip] = video_TYXC
                self._cached_bytes += video_TYXC.nbytes
        return video_TYXC

    def _draw(self, step: int, number: int) -> tuple[int, np.random.Generator]:
        """The clip, and what draws the place in it."""
        key = np.array([self._seed % 2**64, (step << 24) + number], np.uint64)
        rng = np.random.Generator(np.random.Philox(key=key))
        return int(self._clips[np.searchsorted(self._ends, rng.random(), side="right")]), rng


def crop_batches(
    crops: Crops, per_step: int, start_step: int, part: int = 0, parts: int = 1
) -> grain.IterDataset[np.ndarray]:
    """Batches crops_BTYXC of steps start_step, start_step + 1, ..., without end.

    Args:
      crops: to draw from.
      per_step: crops of a step, over all processes.
      start_step: first step.
      part, parts: this process reads part `part` of `parts` equal, contiguous parts of every step; they divide it.
    """
    local = per_step // parts

    def read(number: int) -> np.ndarray:
        step, i = divmod(number, local)
        return crops(step, part * local + i)

    numbers = grain.MapDataset.range(start_step * local, sys.maxsize)
    return numbers.map(read).to_iter_dataset().batch(local, batch_fn=np.stack)
