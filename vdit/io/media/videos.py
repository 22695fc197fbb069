"""Videos through PyAV: decoded once, in order, frame by frame."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vdit.io.media.alive import beat
from vdit.io.media.media import Frame, Media, Unreadable, reason
from vdit.io.media.pixels import describe, flatten, orientation_of_matrix, scale, upright
from vdit.io.media.streams import choose_stream, scan
from vdit.io.names import ffmpeg_name

FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,asf,ogg,mxf,nut,ivf,dv,yuv4mpegpipe,"
    "h264,hevc,m4v"
)
"""Containers that are opened. Playlists are not: a file named .mp4 must not make FFmpeg open others, or URLs."""

MOST_PIXELS = 1 << 27
"""Larger frames are not decoded: a damaged header must not take all memory."""

_HDR = (16, 18)  # AVCOL_TRC_SMPTE2084, AVCOL_TRC_ARIB_STD_B67
_ERRORS = (av.error.FFmpegError, OSError, ValueError, IndexError)
_ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
"""FFmpeg's own decoders leave out the alpha that WebM has in a side stream; these do not."""


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
            packets = scan(container)
            stream, stream_notes = choose_stream(container, packets)
            first = next((frame for frame, _ in _decode(path, threads, stream.index) if frame), None)
            if first is None:
                raise Unreadable("no frame can be decoded")
            length = (container.duration or 0) / av.time_base
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            grid_rate = float(stream.base_rate or 0)
            aspect = float(stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1)
            mine = packets[stream.index]
            times, exact, timed = mine.times(rate), mine.exact, bool(mine.stamps)
            ascend = mine.ascend if mine.stamps else np.zeros(len(times), bool)
            end = max(each.end for each in packets.values())
            index, bits = stream.index, 8 * mine.bytes
    except _ERRORS as error:
        raise Unreadable(f"not a readable video: {reason(error)}") from error
    if timed and end < 0.95 * length - 0.5:
        raise Unreadable(f"the file ends at {end:.1f} s of {length:.1f} s")
    height, width, orientation, notes = _as_shown(first, aspect)
    frames = functools.partial(_read, path, threads, index, (first.height, first.width), orientation, timed)
    notes = (*stream_notes, *notes)
    bits_per_pixel = bits / (max(1, len(times)) * first.height * first.width)
    return Media(height, width, times, rate, grid_rate, exact, ascend, notes, frames, bits_per_pixel)


def _open(path: str, threads: int) -> av.container.InputContainer:
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
    container = av.open(ffmpeg_name(path), options=options, metadata_errors="ignore")
    for stream in container.streams.video:
        if stream.codec_context:  # None: of a codec that is not known
            _set_up(stream.codec_context, threads)
    return container


def _set_up(context: Any, threads: int) -> None:
    context.thread_type = "AUTO" if threads != 1 else "NONE"
    context.thread_count = threads
    context.options = {"max_pixels": str(MOST_PIXELS)}
    # Damaged frames are wanted, marked as such: left out, the others would close the gap unseen.
    context.flags |= av.codec.context.Flags.output_corrupt


def _decode(path: str, threads: int, index: int) -> Iterator[tuple[av.VideoFrame | None, str]]:
    """Frames of a stream from the beginning; where a packet cannot be decoded no frame, but an error."""
    with _open(path, threads) as container:
        stream = container.streams[index]
        assert isinstance(stream, av.VideoStream)
        context = _decoder(stream, threads)
        for packet in container.demux(stream):
            try:
                frames = context.decode(packet) if packet.size or _is_end(packet) else []
            except _ERRORS as error:
                yield None, reason(error)
                continue
            for frame in frames:
                beat()
                yield frame, ""


def _is_end(packet: av.Packet) -> bool:
    """Whether an empty packet ends the stream; others are frames that an AVI dropped."""
    return packet.pts is None and packet.dts is None


def _decoder(stream: av.VideoStream, threads: int) -> Any:
    """The stream's decoder, or another of the same codec where only that one gives alpha."""
    tags = {name.lower(): value for name, value in stream.metadata.items()}
    name = _ALPHA_DECODERS.get(stream.codec_context.name, "")
    if tags.get("alpha_mode") != "1" or name not in av.codecs_available:
        return stream.codec_context
    context = av.CodecContext.create(name, "r")
    context.extradata = stream.codec_context.extradata
    _set_up(context, threads)
    return context


def _as_shown(frame: av.VideoFrame, aspect: float) -> tuple[int, int, int, tuple[str, ...]]:
    """(height, width, orientation, notes); oblong pixels are made square by shrinking them."""
    aspect = aspect if 0.1 < aspect < 10 else 1.0
    height = max(1, round(frame.height / max(aspect, 1.0)))
    width = max(1, round(frame.width * min(aspect, 1.0)))
    orientation = _orientation(frame)
    notes = []
    if abs(aspect - 1) > 1e-3:
        notes.append(f"pixels of aspect {aspect:.4g} made square")
    if orientation > 4:
        height, width = width, height
    if made := describe(orientation):
        notes.append(made)
    if has_alpha(frame):
        notes.append("alpha on white")
    if frame.color_trc in _HDR:
        notes.append("HDR, not tone-mapped")
    if frame.interlaced_frame:
        notes.append("interlaced")
    return height, width, orientation, tuple(notes)


def _orientation(frame: av.VideoFrame) -> int:
    """As in EXIF, from the display matrix."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV does not know all kinds of side data; the angle it finds without
        return (1, 8, 3, 6)[round(frame.rotation / 90) % 4]
    return 1 if matrix is None else orientation_of_matrix(bytes(matrix))


def _read(path: str, threads: int, index: int, size: tuple[int, int], orientation: int, timed: bool) -> Iterator[Frame]:
    """Decodes the file from its beginning; `size` and `orientation` are those of its first frame."""
    number, scaler = 0, Scaler()
    try:
        for frame, error in _decode(path, threads, index):
            if frame is None:
                raise Unreadable(f"frame {number} cannot be decoded: {error}")
            problem = "is damaged" if frame.is_corrupt else ""
            if (frame.height, frame.width) != size:
                problem = f"has another size, {frame.width}x{frame.height}"
            time = float(frame.time) if timed and frame.time is not None else float("nan")
            yield Frame(time, functools.partial(_rgb, scaler, frame, orientation), problem)
            number += 1
    except _ERRORS as error:
        raise Unreadable(f"frame {number} cannot be decoded: {reason(error)}") from error


def _rgb(scaler: Scaler, frame: av.VideoFrame, orientation: int, height: int, width: int) -> np.ndarray:
    if orientation > 4:
        height, width = width, height
    return upright(scaler(frame, height, width), orientation)
