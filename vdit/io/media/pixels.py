"""From what decoders give to upright, opaque, 8-bit RGB."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

UPRIGHT = 1
"""Orientations are numbered as in EXIF, 1 to 8: those above 4 swap height and width."""

_ROWS = 64  # flattened at once: intermediate values take several times the memory of the picture


def flatten(rgba_YXC: np.ndarray) -> np.ndarray:
    """Lays a picture with alpha on white: uint8 (height, width, 3)."""
    rgb_YXC = np.empty((*rgba_YXC.shape[:2], 3), np.uint8)
    for y in range(0, len(rgba_YXC), _ROWS):
        rows = rgba_YXC[y : y + _ROWS]
        alpha_YX1 = rows[..., 3:].astype(np.uint16)
        rgb_YXC[y : y + _ROWS] = (rows[..., :3] * alpha_YX1 + 255 * (255 - alpha_YX1) + 127) // 255
    return rgb_YXC


def rgb_of(picture_YXC: np.ndarray) -> np.ndarray:
    """RGB of a picture of 1, 3 or 4 channels."""
    if picture_YXC.shape[-1] == 4:
        return flatten(picture_YXC)
    return np.ascontiguousarray(np.broadcast_to(picture_YXC, (*picture_YXC.shape[:2], 3)))


def scale(rgb_YXC: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture of another size, area-averaged exactly; FFmpeg's scaler halves the colour resolution of RGB."""
    if rgb_YXC.shape[:2] == (height, width):
        return rgb_YXC
    return np.asarray(Image.fromarray(rgb_YXC).resize((width, height), Image.Resampling.BOX))


def eight_bits(image: Image.Image) -> Image.Image:
    """An image of 8 bits a channel; 16-bit grey and floating point (0 to 1) are scaled, not clipped.

    Raises:
      ValueError: for values that no rule says how to show.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image, np.float64)
    if image.mode.startswith("F"):
        values = values * 65535
    if not (values.min() >= 0 and values.max() <= 65535):
        raise ValueError(f"pixels from {values.min():g} to {values.max():g}: neither 16 bits nor 0 to 1")
    return Image.fromarray((values / 257 + 0.5).astype(np.uint8))


def upright(rgb_YXC: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture as it is shown, mirrored and rotated by quarters of a circle; `orientation` as in EXIF."""
    if orientation == UPRIGHT:
        return rgb_YXC
    if orientation > 4:
        rgb_YXC = rgb_YXC.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rgb_YXC = rgb_YXC[::-1]
    if orientation in (2, 3, 6, 7):
        rgb_YXC = rgb_YXC[:, ::-1]
    return np.ascontiguousarray(rgb_YXC)


def orientation_of_matrix(matrix: bytes) -> int:
    """The nearest orientation to a display matrix, nine int32 in rows: (x, y) is shown at (a x + c y, b x + d y)."""
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return {(False, False): 1, (True, False): 2, (True, True): 3, (False, True): 4}[a < 0, d < 0]
    return {(False, False): 5, (False, True): 6, (True, True): 7, (True, False): 8}[b < 0, c < 0]


def describe(orientation: int) -> str:
    """What is done to bring a picture upright; empty for nothing."""
    return (
        *("", "mirrored", "turned by 180 degrees", "flipped upside down"),
        *("mirrored and turned by 90 degrees", "turned by 90 degrees"),
        *("mirrored and turned by 270 degrees", "turned by 270 degrees"),
    )[orientation - 1]
