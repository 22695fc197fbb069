"""Decoding videos with PyAV: once, in order, frame by frame."""

from __future__ import annotations

import array
import functools
import os
from collections.abc import Iterator

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vdit.io.media.alive import beat
from vdit.io.media.media import Frame, Media, Unreadable, flatten, scale, turn
from vdit.io.media.pictures import reason

FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,asf,ogg"
"""Containers that are opened. Playlists are not: a file named .mp4 must not make FFmpeg open others, or URLs."""

MOST_PIXELS = 1 << 27
"""Larger frames are not decoded: a damaged header must not take all memory."""

_HDR = (16, 18)  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
_ERRORS = (av.error.FFmpegError, OSError, ValueError, IndexError)


class Scaler:
    """Frames as RGB of another size, area-averaged. One per stream: setting a scaler up costs as much as scaling."""

    def __init__(self) -> None:
        self._to_size, self._to_rgb = VideoReformatter(), VideoReformatter()

    def __call__(self, frame: av.VideoFrame, height: int, width: int) -> np.ndarray:
        """uint8 (height, width, 3), alpha laid on white.

        Frames that are not RGB go through full-resolution chroma at the target size. Straight to RGB, FFmpeg's scaler
        would halve the colour resolution of the *small* picture (36 dB against exact averages on the film instead of
        51 dB); RGB is scaled by Pillow for the same reason.
        """
        if has_alpha(frame):
            return scale(flatten(frame.to_ndarray(format="rgba")), height, width)
        if frame.format.is_rgb:
            return scale(frame.to_ndarray(format="rgb24"), height, width)
        frame = self._to_size.reformat(frame, width, height, "yuv444p", interpolation="AREA", threads=1)
        return self._to_rgb.reformat(frame, width, height, "rgb24", interpolation="AREA", threads=1).to_ndarray()


def has_alpha(frame: av.VideoFrame) -> bool:
    """Whether pixels may be transparent; a palette's colours may be."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def open_video(path: str, threads: int = 1) -> Media:
    """Opens a video; all packets are read once (not decoded) for the times of the frames.

    Raises:
      Unreadable: if it holds no video that can be decoded, or ends before its header says.
    """
    try:
        with _open(path, threads) as container:
            stream = _video_stream(container)
            times, exact, end, first = _scan(container, stream)
            if first is None:
                raise Unreadable("no frame can be decoded")
            length = (container.duration or 0) / av.time_base
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            grid_rate = float(stream.base_rate or 0)
            aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
    except _ERRORS as error:
        raise Unreadable(f"not a readable video: {reason(error)}") from error
    if end < 0.95 * length - 0.5:
        raise Unreadable(f"the file ends at {end:.1f} s of {length:.1f} s")
    height, width, quarters, notes = _as_shown(first, aspect)
    frames = functools.partial(_read, path, threads, (first.height, first.width), quarters)
    return Media(height, width, times, rate, grid_rate, exact, notes, frames)


def _open(path: str, threads: int) -> av.container.InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    container = av.open(f"file:{os.path.abspath(path)}", options=options, metadata_errors="ignore")
    for stream in container.streams.video:
        stream.thread_type = "AUTO" if threads != 1 else "NONE"
        stream.codec_context.thread_count = threads
        stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}
        # Damaged frames are wanted, marked as such: left out, the others would close the gap unseen.
        stream.codec_context.flags |= av.codec.context.Flags.output_corrupt
    return container


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """The first stream that is a video; a cover picture is none."""
    covers = av.stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & covers:
            return stream
    raise Unreadable("the file has sound only" if container.streams.audio else "the file has no video stream")


def _scan(
    container: av.container.InputContainer, stream: av.VideoStream
) -> tuple[np.ndarray, bool, float, av.VideoFrame | None]:
    """Reads all packets.

    Returns:
      times of the video's frames; whether all packets say when they are shown (AVI tells when they are decoded); where
      the last stream ends; and the first frame that can be decoded.
    """
    stamps, exact, first = array.array("q"), True, None
    ends = [0] * len(container.streams)  # in ticks: a fraction for every packet takes longer than reading it
    for packet in container.demux():
        beat()
        of_video = packet.stream_index == stream.index
        if of_video and first is None:
            first = _first_frame(packet)
        stamp = packet.dts if packet.pts is None else packet.pts
        if stamp is None:  # the empty packet at the end
            continue
        ends[packet.stream_index] = max(ends[packet.stream_index], stamp + (packet.duration or 0))
        if of_video and not packet.is_discard:
            stamps.append(stamp)
            exact &= packet.pts is not None
    times = np.sort(np.array(stamps, np.float64)) * float(stream.time_base or 0)
    end = max(float(ticks * (each.time_base or 0)) for ticks, each in zip(ends, container.streams, strict=True))
    return times, exact, end, first


def _first_frame(packet: av.Packet) -> av.VideoFrame | None:
    try:
        return next(iter(packet.decode()), None)
    except av.error.FFmpegError:
        return None


def _as_shown(frame: av.VideoFrame, aspect: float) -> tuple[int, int, int, tuple[str, ...]]:
    """(height, width, quarter turns counter-clockwise, notes); oblong pixels are made square by shrinking them."""
    aspect = aspect if 0.1 < aspect < 10 else 1.0
    height = max(1, round(frame.height / max(aspect, 1.0)))
    width = max(1, round(frame.width * min(aspect, 1.0)))
    quarters = round(frame.rotation / 90) % 4
    notes = []
    if abs(aspect - 1) > 1e-3:
        notes.append(f"pixels of aspect {aspect:.4g} made square")
    if quarters:
        notes.append(f"turned by {(-90 * quarters) % 360} degrees")
        height, width = (width, height) if quarters % 2 else (height, width)
    if has_alpha(frame):
        notes.append("alpha on white")
    if frame.color_trc in _HDR:
        notes.append("HDR, not tone-mapped")
    if frame.interlaced_frame:
        notes.append("interlaced")
    return height, width, quarters, tuple(notes)


def _read(path: str, threads: int, size: tuple[int, int], quarters: int) -> Iterator[Frame]:
    """Decodes the file from its beginning; `size` and `quarters` are those of its first frame."""
    number, scaler = 0, Scaler()
    try:
        with _open(path, threads) as container:
            for frame in container.decode(_video_stream(container)):
                beat()
                problem = "is damaged" if frame.is_corrupt else ""
                if (frame.height, frame.width) != size:
                    problem = f"has another size, {frame.width}x{frame.height}"
                time = float(frame.time) if frame.time is not None else float("nan")
                yield Frame(time, functools.partial(_upright, scaler, frame, quarters), problem)
                number += 1
    except _ERRORS as error:
        raise Unreadable(f"frame {number} cannot be decoded: {reason(error)}") from error


def _upright(scaler: Scaler, frame: av.VideoFrame, quarters: int, height: int, width: int) -> np.ndarray:
    if quarters % 2:
        height, width = width, height
    return turn(scaler(frame, height, width), quarters)
