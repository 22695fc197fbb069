"""Draws balls with a soft edge on white."""

from __future__ import annotations

import numpy as np

EDGE = 1.0
"""Half the width of a ball's soft edge, pixels. Coverage falls from 1 to 0 between radius - EDGE and radius + EDGE."""


def coverage(centres_TB2: np.ndarray, radii_B: np.ndarray, height: int, width: int) -> np.ndarray:
    """The share of each pixel that each ball covers, in 0..1.

    The edge is a quintic smoothstep of the distance to the rim: smooth enough that pixel means give the centre to
    .003 pixels (at worst .014; the exact area of a sharp disc in each pixel is worse: it aliases), and antisymmetric
    about the rim, so the coverages of two touching balls add up to at most 1 and mix linearly.

    Args:
      centres_TB2: (x, y) in pixels, the centre of the top left pixel at (.5, .5).
      radii_B: in pixels.

    Returns:
      float32 (T, balls, height, width).
    """
    centres = centres_TB2.astype(np.float32)
    dy = np.arange(height, dtype=np.float32) + 0.5 - centres[..., 1:]
    dx = np.arange(width, dtype=np.float32) + 0.5 - centres[..., :1]
    distance = np.sqrt(dy[..., :, None] ** 2 + dx[..., None, :] ** 2)
    s = np.clip((radii_B.astype(np.float32)[:, None, None] + EDGE - distance) / (2 * EDGE), 0, 1)
    return s**3 * (10 - 15 * s + 6 * s * s)


def render(centres_TB2: np.ndarray, radii_B: np.ndarray, colours_B3: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draws a clip.

    Args:
      centres_TB2, radii_B: pixels, see `coverage`.
      colours_B3: uint8.

    Returns:
      video_TYXC uint8.
    """
    cover = coverage(centres_TB2, radii_B, height, width)
    frames, balls = cover.shape[:2]
    tint_B3 = colours_B3.astype(np.float32) - 255
    pixels = cover.reshape(frames, balls, -1).transpose(0, 2, 1) @ tint_B3 + 255.5
    return np.clip(pixels, 0, 255).astype(np.uint8).reshape(frames, height, width, 3)


def draw_frame(video_TYXC: np.ndarray, pixels: int) -> None:
    """Draws black walls along the edges of every picture, in place."""
    for edge in (np.s_[:, :pixels], np.s_[:, -pixels:], np.s_[:, :, :pixels], np.s_[:, :, -pixels:]):
        video_TYXC[edge] = 0
