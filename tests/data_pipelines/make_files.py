"""Videos and images with known pictures, for the tests of the reader."""

import pathlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np

Picture = Callable[[int], np.ndarray]


def quadrants(height: int, width: int, shift: int = 0) -> np.ndarray:
    """Red, green, blue and white quarters, from the top left clockwise: which way is up can be seen."""
    picture = np.zeros((height, width, 3), np.uint8)
    y, x = height // 2, width // 2
    picture[:y, :x], picture[:y, x:], picture[y:, x:], picture[y:, :x] = (
        (200, 30, 30),
        (30, 180, 30),
        (30, 30, 200),
        (220, 220, 220),
    )
    return np.roll(picture, shift, axis=1)


def grey(value: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def write_video(
    path: pathlib.Path,
    pictures: Sequence[np.ndarray],
    rate: Any = 24,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    times: Sequence[float] | None = None,
    source_format: str = "rgb24",
    rotation: int = 0,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
    sound: bool = False,
    **context: Any,
) -> pathlib.Path:
    """Writes frames; `times` in seconds make their intervals uneven, `context` sets fields of the codec."""
    if codec == "libx264":
        options = {"crf": "4", "preset": "ultrafast", **(options or {})}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options or {})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if times is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=8000) if sound else None
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), source_format)
            if times is not None:
                frame.pts, frame.time_base = round(times[i] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if audio is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            tone.sample_rate = 8000
            container.mux(audio.encode(tone))
            container.mux(audio.encode())
    return path


def write_sound(path: pathlib.Path) -> pathlib.Path:
    """A file with sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
        tone.sample_rate = 8000
        container.mux(stream.encode(tone))
        container.mux(stream.encode())
    return path
