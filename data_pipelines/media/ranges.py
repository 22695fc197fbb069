"""Frame ranges of an intact video with evenly spaced frames, such as the shots of a film."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import av
import numpy as np

from vdit.errors import UserError
from vdit.io.media.alive import beat
from vdit.io.media.videos import Scaler
from vdit.io.names import ffmpeg_name


class VideoInfo(NamedTuple):
    """Size in pixels and frame rate of a video file."""

    height: int
    width: int
    fps: float


def probe(path: pathlib.Path) -> VideoInfo:
    """Reads size and rate of the first video stream.

    Raises:
      UserError: if the file is not a readable video.
    """
    try:
        with av.open(ffmpeg_name(path)) as container:
            stream = container.streams.video[0]
            rate = stream.average_rate or stream.guessed_rate
            return VideoInfo(stream.codec_context.height, stream.codec_context.width, float(rate or 0))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path} is not a readable video ({error}); give another file") from error


def decode_ranges(
    path: pathlib.Path, ranges: Sequence[tuple[int, int]], step: int, height: int, width: int
) -> Iterator[np.ndarray]:
    """Decodes frame ranges of an intact file with evenly spaced frames in one pass.

    Args:
      path: video file.
      ranges: half-open [start, end) in the order of showing, ascending and apart from each other.
      step: every step-th frame of a range is kept, its first one included.
      height, width: size to which frames are scaled by area averaging.

    Yields:
      For each range video_TYXC, uint8 RGB; shorter or empty if the file ends before it does. One range at a time is
      held in memory.

    Raises:
      UserError: if the file breaks off with a decoding error.
    """
    frames, scaler = _frames_from(path, ranges[0][0] if ranges else 0), Scaler()
    number = -1
    for start, end in ranges:
        kept = []
        while number < end - 1:
            number, frame = next(frames, (number, None))
            if frame is None:
                break
            if number >= start and (number - start) % step == 0:
                kept.append(scaler(frame, height, width))
        yield np.stack(kept) if kept else np.zeros((0, height, width, 3), np.uint8)


def _frames_from(path: pathlib.Path, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, frame) from the last key frame at or before frame `start`."""
    try:
        with av.open(ffmpeg_name(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # there are as many processes as cores
            assert stream.average_rate and stream.time_base  # `probe` has seen them
            interval = 1 / (stream.average_rate * stream.time_base)
            first = stream.start_time or 0
            container.seek(int(first + start * interval), stream=stream)
            for frame in container.decode(stream):
                beat()
                yield round(((frame.pts or 0) - first) / interval), frame
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise UserError(f"{path} cannot be decoded ({error}); give another file") from error
