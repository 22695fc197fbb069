"""Pictures and animations through Pillow."""

from __future__ import annotations

import functools
import itertools
import os
import warnings
from collections.abc import Iterator

import numpy as np
import pillow_heif
from PIL import Image, UnidentifiedImageError

from vdit.io.media.alive import beat
from vdit.io.media.media import Frame, Media, Unreadable, reason
from vdit.io.media.pixels import UPRIGHT, eight_bits, flatten, scale, upright

DEFAULT_DELAY = 0.1
"""Seconds a frame of an animation stays that says at most 10 ms, as browsers do."""

_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
"""Further pictures of other formats are no frames: gain maps, previews, the other eye, pages."""

_ORIENTATION, _SUBFILE = 0x0112, 254  # tags of EXIF and TIFF

pillow_heif.register_heif_opener()
warnings.filterwarnings("ignore", module=r"PIL\.")  # of damage, which ends in an error where it matters


def open_picture(path: str, formats: tuple[str, ...]) -> Media:
    """Opens a picture or an animation.

    Args:
      path: of the file.
      formats: Pillow's names of what it may be.

    Raises:
      Unreadable: if it is damaged, or has more pixels than Pillow thinks safe.
    """
    try:
        with Image.open(path, formats=formats) as image:
            delays = _delays(image)
            image.seek(0)
            orientation, notes = _orientation(image), _notes(image)
            height, width = (image.width, image.height) if orientation > 4 else (image.height, image.width)
    except UnidentifiedImageError as error:
        raise Unreadable(f"a picture ({formats[0]}) that cannot be decoded") from error
    except Exception as error:  # damaged files raise what their decoders please
        raise Unreadable(f"a picture ({formats[0]}) that cannot be decoded: {reason(error)}") from error
    times = np.cumsum([0.0, *delays[:-1]])
    frames = functools.partial(_frames, path, formats, times, orientation)
    in_doubt, bits_per_pixel = np.zeros(len(times), bool), 8 * os.path.getsize(path) / (len(times) * height * width)
    return Media(height, width, times, 0.0, 0.0, True, in_doubt, notes, frames, bits_per_pixel)


def _delays(image: Image.Image) -> list[float]:
    """Seconds that each frame of an animation stays; one 0 of a still picture."""
    if image.format == "TIFF" and image.tag_v2.get(_SUBFILE, 0) & 1:  # type: ignore[attr-defined]
        raise ValueError("a raw photo, of which only the preview could be read")
    if not _is_animation(image):
        return [0.0]
    return [_delay(image) for _ in _seek(image)]


def _is_animation(image: Image.Image) -> bool:
    return image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1


def _seek(image: Image.Image) -> Iterator[int]:
    """Goes from frame to frame; the picture an animated PNG holds for programs that show no animations is no frame."""
    first = int(image.format == "PNG" and bool(getattr(image, "default_image", False)))
    for number in itertools.count(first):
        try:
            image.seek(number)
        except EOFError:
            return
        yield number


def _delay(frame: Image.Image) -> float:
    if frame.format in ("WEBP", "AVIF"):  # known only then
        frame.load()
    seconds = float(frame.info.get("duration") or 0) / 1000
    return seconds if seconds > 0.01 else DEFAULT_DELAY


def _frames(path: str, formats: tuple[str, ...], times: np.ndarray, orientation: int) -> Iterator[Frame]:
    number = 0
    try:
        with Image.open(path, formats=formats) as image:
            for number, _ in enumerate(_seek(image) if _is_animation(image) else range(1)):
                beat()
                rgb_YXC = upright(_to_rgb(image), orientation)
                yield Frame(float(times[number]), functools.partial(scale, rgb_YXC))
    except Exception as error:
        what = f"frame {number} of {len(times)}" if len(times) > 1 else "the picture"
        raise Unreadable(f"{what} cannot be decoded: {reason(error)}") from error


def _to_rgb(image: Image.Image) -> np.ndarray:
    """Pixels of an image, alpha laid on white, 16 bits brought to 8: uint8 (height, width, 3), as stored."""
    image.load()
    if image.has_transparency_data and not image.mode.startswith("I"):
        return flatten(np.asarray(image.convert("RGBA")))
    return np.asarray(eight_bits(image).convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """What is left to do to what Pillow gives: of TIFF it turns pictures by itself."""
    return UPRIGHT if image.format == "TIFF" else _exif(image)


def _exif(image: Image.Image) -> int:
    number = image.getexif().get(_ORIENTATION, UPRIGHT)
    return number if number in range(1, 9) else UPRIGHT


def _notes(image: Image.Image) -> tuple[str, ...]:
    notes = []
    if _exif(image) != UPRIGHT:
        notes.append("turned upright")
    if image.has_transparency_data:
        notes.append("alpha on white")
    if (count := getattr(image, "n_frames", 1)) > 1 and not _is_animation(image):
        notes.append(f"first of {count} pictures")
    return tuple(notes)
