"""A video or picture that was opened: what it shows, and its frames one by one, scaled while they are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vdit.io.media.pixels import rgb_of, scale


class Unreadable(Exception):
    """A file that gives no clip; the message is the reason, for a ledger or an error."""


class Frame(NamedTuple):
    """One frame, not yet scaled.

    Attributes:
      time: seconds.
      rgb: gives it as RGB of (height, width) pixels, uint8.
      problem: why it cannot be used; empty = it can.
    """

    time: float
    rgb: Callable[[int, int], np.ndarray]
    problem: str = ""


@dataclasses.dataclass(frozen=True)
class Media:
    """A file that was opened.

    Attributes:
      height, width: as it is shown: upright, and in square pixels.
      times: seconds at which the frames are shown, ascending, known before they are decoded.
      rate: average frames per second, 0 if the file does not say.
      grid_rate: frames per second of the finest grid that all times lie on; 0 if unknown.
      exact: whether the file has a time for every frame, so that a frame the decoder leaves out is known to be missing.
      unordered: of each time, whether those around it ascend in the order of decoding, so that they may be those of
        decoding, not of showing.
      notes: what is done to every frame beside scaling, for the ledger.
      frames: decodes from the beginning, in the order of showing. Raises Unreadable where the file breaks off.
      bits_per_pixel: of the coded frames: few where a file was compressed much; NaN if it is none.
    """

    height: int
    width: int
    times: np.ndarray
    rate: float
    grid_rate: float
    exact: bool
    unordered: np.ndarray
    notes: tuple[str, ...]
    frames: Callable[[], Iterator[Frame]]
    bits_per_pixel: float = float("nan")


def array_media(video_TYXC: np.ndarray, rate: float) -> Media:
    """Media of an array.

    Args:
      video_TYXC: uint8 frames of 1 (grey), 3 (RGB) or 4 (RGB and alpha) channels.
      rate: frames per second; of a picture 0.
    """
    frames, height, width, channels = video_TYXC.shape
    times = np.arange(frames) / (rate or 1.0)

    def read() -> Iterator[Frame]:
        for time, picture_YXC in zip(times.tolist(), video_TYXC, strict=True):
            yield Frame(time, lambda y, x, picture_YXC=picture_YXC: scale(rgb_of(picture_YXC), y, x))  # type: ignore[misc]

    return Media(
        height, width, times, rate, 0.0, True, np.zeros(frames, bool), ("alpha on white",) * (channels == 4), read
    )


def reason(error: Any) -> str:
    """An error as one short line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:160] or type(error).__name__
