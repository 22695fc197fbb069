"""Encoding many clips at once: one on each device of this process.

Clips of one size of frame go together, the longest first. Whatever the other devices hold, a device runs the program
that one alone would run, so the latents do not depend on how many there are.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.models.autoencoders.autoencoder import Autoencoder
from vdit.parallel.mesh import make_mesh, rows_spec


@dataclasses.dataclass
class Usage:
    """What encoding took.

    Attributes:
      programs: (frames, height, width) of every chunk of pixels for which a program was compiled.
      groups: groups of frames encoded, each one latent frame.
      slots: groups for which there was room, with those of devices that had no clip, or a shorter one.
    """

    programs: set[tuple[int, int, int]] = dataclasses.field(default_factory=set)
    groups: int = 0
    slots: int = 0

    def __str__(self) -> str:
        sizes = len({program[1:] for program in self.programs})
        padding = 1 - self.groups / max(self.slots, 1)
        return (
            f"{self.groups} latent frames by {len(self.programs)} compiled programs for {sizes} size(s) of frame; "
            f"{padding:.1%} of the work was padding"
        )


class ClipEncoder:
    """Encodes clips with an autoencoder on all devices of this process.

    Args:
      autoencoder: whose latents are wanted.
      devices: to use; default: all of this process.

    Attributes:
      usage: of all calls.
    """

    def __init__(self, autoencoder: Autoencoder, devices: Sequence[Any] | None = None):
        self._autoencoder = autoencoder
        self._mesh: Mesh = make_mesh(MeshConfig(), list(devices or jax.local_devices()))
        self._weights = jax.device_put(autoencoder.weights, NamedSharding(self._mesh, P()))
        rows = rows_spec(1)
        # Everything that is sharded leads with the clips, one a device.
        self._network = jax.jit(
            jax.shard_map(
                autoencoder.encoder, mesh=self._mesh, in_specs=(P(), rows, rows), out_specs=rows, check_vma=False
            )
        )
        self.usage = Usage()

    @property
    def devices(self) -> int:
        return int(self._mesh.size)

    def __call__(self, videos: Sequence[np.ndarray]) -> list[np.ndarray]:
        """latents_TYXC float32 of each video_TYXC uint8.

        Raises:
          UserError: if a clip does not fit the strides.
        """
        by_size: dict[tuple[int, int], list[int]] = defaultdict(list)
        time, height, width = self._autoencoder.strides
        for i, video_TYXC in enumerate(videos):
            t, y, x, _ = video_TYXC.shape
            if (t - 1) % time or y % height or x % width:
                raise UserError(f"{t} frames of {x}x{y} are not 1 + k*{time} frames of multiples of {width}x{height}")
            by_size[y, x].append(i)
        out: list[np.ndarray] = [np.empty(0)] * len(videos)
        for members in by_size.values():
            members.sort(key=lambda i: -len(videos[i]))  # those that share a call are about as long
            for start in range(0, len(members), self.devices):
                batch = members[start : start + self.devices]
                for i, latents_TYXC in zip(batch, self._encode([videos[i] for i in batch]), strict=True):
                    out[i] = latents_TYXC
        return out

    def _encode(self, videos: list[np.ndarray]) -> list[np.ndarray]:
        """Of at most as many clips as there are devices, of one size, the longest first."""
        time = self._autoencoder.strides[0]
        counts = [1 + (len(video_TYXC) - 1) // time for video_TYXC in videos]
        past, found = None, []
        for group in range(counts[0]):
            first, last = (0, 1) if group == 0 else (1 + (group - 1) * time, 1 + group * time)
            chunk_BTYXC = np.zeros((self.devices, last - first, *videos[0].shape[1:]), np.float32)
            for row, video_TYXC in enumerate(videos):
                if group < counts[row]:
                    chunk_BTYXC[row] = video_TYXC[first:last].astype(np.float32) / 127.5 - 1
            placed = jax.device_put(chunk_BTYXC, NamedSharding(self._mesh, rows_spec(chunk_BTYXC.ndim)))
            latents_BTYXC, past = self._network(self._weights, placed, past)
            found.append(np.asarray(latents_BTYXC, np.float32))
            self.usage.programs.add(chunk_BTYXC.shape[1:4])
        self.usage.groups += sum(counts)
        self.usage.slots += counts[0] * self.devices
        latents_BTYXC = np.concatenate(found, 1)
        return [latents_BTYXC[row, :count] for row, count in enumerate(counts)]
