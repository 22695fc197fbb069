"""Images and animations (jpg, png, gif, webp) through Pillow."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, ImageOps, ImageSequence

from vdit.io.media.alive import beat
from vdit.io.media.media import Frame, Media, Unreadable, flatten, scale

DEFAULT_DELAY = 0.1
"""Seconds a frame of an animation stays that says at most 10 ms, as browsers do."""

_ERRORS = (OSError, SyntaxError, ValueError, EOFError, IndexError, Image.DecompressionBombError, MemoryError)


def open_image(path: str) -> Media:
    """Opens an image or an animation.

    Raises:
      Unreadable: if it is damaged, or has more pixels than Pillow thinks safe.
    """
    try:
        with Image.open(path) as image:
            count = getattr(image, "n_frames", 1)
            delays = [_delay(frame) for frame in ImageSequence.Iterator(image)] if count > 1 else [0.0]
            image.seek(0)
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
            height, width = (image.width, image.height) if turned else (image.height, image.width)
            notes = _notes(image)
    except _ERRORS as error:
        raise Unreadable(f"not a readable image: {reason(error)}") from error
    times = np.cumsum([0.0, *delays[:-1]])
    return Media(height, width, times, 0.0, 0.0, True, notes, functools.partial(_frames, path, times))


def _frames(path: str, times: np.ndarray) -> Iterator[Frame]:
    number = 0
    try:
        with Image.open(path) as image:
            for number, frame in enumerate(ImageSequence.Iterator(image)):
                beat()
                rgb = to_rgb(frame)
                yield Frame(float(times[number]), functools.partial(scale, rgb))
    except _ERRORS as error:
        raise Unreadable(f"frame {number} of {len(times)} cannot be decoded: {reason(error)}") from error


def to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an image, upright, alpha laid on white, 16 bits brought to 8: uint8 (height, width, 3)."""
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):  # grey of 16 bits
        upright = Image.fromarray((np.asarray(upright, np.float64) / 257 + 0.5).clip(0, 255).astype(np.uint8))
    if upright.has_transparency_data:
        return flatten(np.asarray(upright.convert("RGBA")))
    return np.asarray(upright.convert("RGB"))


def _delay(frame: Image.Image) -> float:
    if frame.format == "WEBP":  # tells it only then
        frame.load()
    seconds = float(frame.info.get("duration") or 0) / 1000
    return seconds if seconds > 0.01 else DEFAULT_DELAY


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if image.getexif().get(0x0112, 1) != 1:
        notes.append("turned upright")
    if image.has_transparency_data:
        notes.append("alpha on white")
    return tuple(notes)


def reason(error: Any) -> str:
    """An error as one short line."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(text.split())[:160] or type(error).__name__
