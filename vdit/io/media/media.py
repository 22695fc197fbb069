"""Opening any video or image file: what it shows, and its frames one by one, scaled by area averaging."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
IMAGE_SUFFIXES = (".gif", ".jpg", ".jpeg", ".png", ".webp")
_ROWS = 64  # flattened at once: intermediate values take several times the memory of the picture
_IMAGE_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8")


class Unreadable(Exception):
    """A file that gives no clip; the message is the reason for the ledger."""


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
      times: seconds at which the frames are shown, ascending, as the file tells before they are decoded.
      rate: average frames per second, 0 if the file tells none.
      grid_rate: frames per second of the finest grid that all times lie on; 0 if unknown.
      exact: whether the file has a time for every frame, so that a frame the decoder leaves out is known to be missing.
      notes: what is done to every frame beside scaling, for the ledger.
      frames: decodes from the beginning. Raises Unreadable where the file breaks off.
    """

    height: int
    width: int
    times: np.ndarray
    rate: float
    grid_rate: float
    exact: bool
    notes: tuple[str, ...]
    frames: Callable[[], Iterator[Frame]]


def open_media(path: str, threads: int = 1) -> Media:
    """Opens a file, whatever its name says, by what is in it.

    Args:
      path: of a local file.
      threads: of the decoder. With more than one, what a damaged file gives can vary from run to run.

    Raises:
      Unreadable: if it is neither a video nor an image.
    """
    from vdit.io.media.pictures import open_image
    from vdit.io.media.videos import open_video

    with open(path, "rb") as file:
        head = file.read(16)
    if not head:
        raise Unreadable("the file is empty")
    if head.startswith(_IMAGE_MAGIC) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return open_image(path)
    return open_video(path, threads)


def flatten(rgba_YXC: np.ndarray) -> np.ndarray:
    """Lays a picture with alpha on white: uint8 (height, width, 3)."""
    rgb_YXC = np.empty((*rgba_YXC.shape[:2], 3), np.uint8)
    for y in range(0, len(rgba_YXC), _ROWS):
        rows = rgba_YXC[y : y + _ROWS]
        alpha_YX1 = rows[..., 3:].astype(np.uint16)
        rgb_YXC[y : y + _ROWS] = (rows[..., :3] * alpha_YX1 + 255 * (255 - alpha_YX1) + 127) // 255
    return rgb_YXC


def scale(rgb_YXC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of another size, area-averaged exactly; FFmpeg's scaler halves the colour resolution of RGB."""
    if rgb_YXC.shape[:2] == (height, width):
        return rgb_YXC
    return np.asarray(Image.fromarray(rgb_YXC).resize((width, height), Image.Resampling.BOX))


def turn(rgb_YXC: np.ndarray, quarters: int) -> np.ndarray:
    """Turns a picture counter-clockwise by quarters of a circle."""
    return np.ascontiguousarray(np.rot90(rgb_YXC, quarters)) if quarters else rgb_YXC
