"""What every video autoencoder offers: pixels to latents and back, streamed in time and tiled in space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vdit.errors import UserError

Past = Any
"""What a chunk leaves for the next: arrays by layer."""
Network = Callable[[Any, Any, Past | None], tuple[jax.Array, Past]]
"""(weights, chunk_BTYXC, past or None before the first chunk) -> (out_BTYXC, past), compiled; B leads in every past."""


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A causal autoencoder: frame 0 is a group by itself, then groups of strides[0] frames; an image is one frame.

    Attributes:
      name, hash: identity; data sets and checkpoints keep them.
      strides: (time, height, width) frames and pixels per latent.
      channels: C of a latent.
      weights: of both networks.
      encoder: pixels in [-1, 1] to the mean latent, scaled to about unit variance.
      decoder: the way back.
      halo: latents on every side of a tile that its own latents can depend on. Where it covers all that they depend
        on, tiles are exact; a network with attention over the frame has none that does.
      condition: channels at the end of a latent that say what is known of the clip, and are not decoded.
    """

    name: str
    hash: str
    strides: tuple[int, int, int]
    channels: int
    weights: Any
    encoder: Network
    decoder: Network
    halo: int
    condition: int = 0

    @property
    def identity(self) -> dict[str, Any]:
        """What a data set of its latents says of it."""
        known = {"condition": self.condition} if self.condition else {}
        return {"name": self.name, "hash": self.hash, "strides": list(self.strides), **known}

    def encode(self, video_TYXC: np.ndarray, chunk: int = 4, tile: int = 0) -> np.ndarray:
        """Latents of a clip.

        Args:
          video_TYXC: uint8, 1 + k strides[0] frames, sides multiples of the strides.
          chunk: latent frames worked on at once; memory grows with it, the result does not depend on it.
          tile: longest side, in latents, of what is worked on at once, halo apart; 0 = the whole frame.

        Returns:
          latents_TYXC float32.

        Raises:
          UserError: if the clip does not fit the strides.
        """
        return np.concatenate(list(self.encode_stream(iter([video_TYXC]), chunk, tile)))

    def decode(self, latents_TYXC: np.ndarray, chunk: int = 4, tile: int = 0) -> np.ndarray:
        """The clip of latents, uint8; arguments as those of `encode`."""
        return np.concatenate(list(self.decode_stream(iter([latents_TYXC]), chunk, tile)))

    def encode_stream(self, pieces: Iterable[np.ndarray], chunk: int = 4, tile: int = 0) -> Iterator[np.ndarray]:
        """As `encode`, of a clip that comes in pieces of any length, in the memory of one chunk."""
        time, height, width = self.strides
        tiles: _Tiles | None = None
        for part in _regroup(pieces, chunk * time):
            if tiles is None:
                rows, columns = part.shape[1] // height, part.shape[2] // width
                if part.shape[1] % height or part.shape[2] % width:
                    raise UserError(f"frames of {part.shape[2]}x{part.shape[1]} are not multiples of {width}x{height}")
                tiles = _Tiles(self._run(self.encoder), rows, columns, tile, self.halo, (height, width), (1, 1))
            elif len(part) % time:
                raise UserError(f"a clip must have 1 + k*{time} frames to be encoded")
            yield np.asarray(tiles(part.astype(np.float32) / 127.5 - 1), np.float32)

    def decode_stream(self, pieces: Iterable[np.ndarray], chunk: int = 4, tile: int = 0) -> Iterator[np.ndarray]:
        """As `decode`, of latents that come in pieces of any length, in the memory of one chunk."""
        _, height, width = self.strides
        tiles: _Tiles | None = None
        for part in _regroup(pieces, chunk):
            if tiles is None:
                tiles = _Tiles(
                    self._run(self.decoder), part.shape[1], part.shape[2], tile, self.halo, (1, 1), (height, width)
                )
            pixels = np.asarray(tiles(part.astype(np.float32)), np.float32)
            yield np.clip(np.rint((pixels + 1) * 127.5), 0, 255).astype(np.uint8)

    def _run(self, network: Network) -> Callable[[Any, Past | None], tuple[jax.Array, Past]]:
        return lambda chunk_BTYXC, past: network(self.weights, chunk_BTYXC, past)


def _regroup(pieces: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """The first frame by itself, then parts of `size` frames; the last may be shorter."""
    held: list[np.ndarray] = []
    count, wanted = 0, 1
    for piece in pieces:
        held.append(piece)
        count += len(piece)
        while count >= wanted:
            joined = np.concatenate(held) if len(held) > 1 else held[0]
            yield joined[:wanted]
            held, count, wanted = [joined[wanted:]], count - wanted, size
    if count:
        yield np.concatenate(held)


class _Tiles:
    """Runs a network over the tiles of each part of a clip; every tile keeps a past of its own.

    All tiles have one size, so that one program is compiled: at a border they reach further in than the halo.
    """

    def __init__(
        self,
        network: Callable[[Any, Past | None], tuple[jax.Array, Past]],
        rows: int,
        columns: int,
        tile: int,
        halo: int,
        unit_in: tuple[int, int],
        unit_out: tuple[int, int],
    ):
        self._network = network
        self._rows, self._columns = _spans(rows, tile, halo), _spans(columns, tile, halo)
        self._size = rows, columns
        self._in, self._out = unit_in, unit_out
        self._past: dict[tuple[int, int], Past] = {}

    def __call__(self, part_TYXC: np.ndarray) -> np.ndarray:
        whole: np.ndarray | None = None
        for y, row in enumerate(self._rows):
            for x, column in enumerate(self._columns):
                piece = part_TYXC[
                    :, _slice(row.start, row.end, self._in[0]), _slice(column.start, column.end, self._in[1])
                ]
                out, self._past[y, x] = self._network(piece[None], self._past.get((y, x)))
                out_TYXC = np.asarray(out[0])
                if whole is None:
                    sides = (side * unit for side, unit in zip(self._size, self._out, strict=True))
                    whole = np.empty((len(out_TYXC), *sides, out_TYXC.shape[-1]), out_TYXC.dtype)
                inner = out_TYXC[:, row.inner(self._out[0]), column.inner(self._out[1])]
                whole[:, _slice(row.first, row.last, self._out[0]), _slice(column.first, column.last, self._out[1])] = (
                    inner
                )
        assert whole is not None
        return whole


@dataclasses.dataclass(frozen=True)
class _Span:
    """Along one side: latents start:end are worked on, first:last of them are kept."""

    start: int
    end: int
    first: int
    last: int

    def inner(self, unit: int) -> slice:
        return _slice(self.first - self.start, self.last - self.start, unit)


def _slice(first: int, last: int, unit: int) -> slice:
    return slice(first * unit, last * unit)


def _spans(size: int, tile: int, halo: int) -> list[_Span]:
    """Tiles of one side, all of min(size, tile + 2 halo) latents."""
    if not tile or size <= tile + 2 * halo:
        return [_Span(0, size, 0, size)]
    length = tile + 2 * halo
    spans = []
    for first in range(0, size, tile):
        start = min(max(0, first - halo), size - length)
        spans.append(_Span(start, start + length, first, min(first + tile, size)))
    return spans
