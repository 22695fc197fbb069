"""Animated grids of small videos, every pixel a square: as a GIF for pages, as an animated PNG for notebooks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABEL, GAP = 18, 6
LAST = 1000
"""Milliseconds for which the last frame stands."""


def grid(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[np.ndarray]]], scale: int) -> list[Image.Image]:
    """Frames of a grid of videos; shorter ones stand still at their end.

    Args:
      columns: what stands above each column.
      rows: (what stands below it, a uint8 video_TYXC for each column) of each row.
      scale: side of a pixel's square.
    """
    videos = [video for _, row in rows for video in row]
    height, width = (scale * max(video.shape[axis] for video in videos) for axis in (1, 2))
    drawn = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    width = max(width, *(int(drawn.textlength(title)) for title in columns))
    size = (GAP + len(columns) * (width + GAP), LABEL + len(rows) * (height + LABEL + GAP))
    pictures = []
    for t in range(max(map(len, videos))):
        picture = Image.new("RGB", size, "#dddddd")
        draw = ImageDraw.Draw(picture)
        for column, title in enumerate(columns):
            draw.text((GAP + column * (width + GAP), 4), title, fill="black")
        for number, (caption, row) in enumerate(rows):
            top = LABEL + number * (height + LABEL + GAP)
            draw.text((GAP, top + height + 3), caption, fill="#333333")
            for column, video in enumerate(row):
                frame = video[min(t, len(video) - 1)].repeat(scale, 0).repeat(scale, 1)
                picture.paste(Image.fromarray(frame), (GAP + column * (width + GAP), top))
        pictures.append(picture)
    return pictures


def write_gif(path: Path, pictures: Sequence[Image.Image], fps: float) -> None:
    """Writes an endless GIF with one palette for all frames."""
    colours = Image.fromarray(np.concatenate([np.asarray(picture) for picture in pictures])).quantize(256)
    first, *others = (picture.quantize(palette=colours, dither=Image.Dither.NONE) for picture in pictures)
    first.save(
        path, save_all=True, append_images=others, duration=_durations(len(pictures), fps), loop=0, optimize=True
    )


def png(pictures: Sequence[Image.Image], fps: float) -> bytes:
    """An endless animated PNG; where animation is not known, its first frame."""
    file = io.BytesIO()
    first, *others = pictures
    first.save(file, "PNG", save_all=True, append_images=others, duration=_durations(len(pictures), fps), loop=0)
    return file.getvalue()


def _durations(frames: int, fps: float) -> list[int]:
    """Milliseconds of each frame."""
    return [round(1000 / fps)] * (frames - 1) + [LAST]
