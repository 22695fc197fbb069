"""Writing what was generated: mp4 (H.264), gif, PNG strips, npz."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vdit.errors import UserError
from vdit.io import files
from vdit.io.names import ffmpeg_name
from vdit.io.storage.failures import mend_of

FORMATS = (".mp4", ".gif", ".png", ".npz")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write to that becomes `path` at the end: the file is complete or not there at all.

    Raises:
      UserError: if it cannot be written, such as on a full disk.
    """
    try:
        with files.whole_file(path) as partial:
            yield partial
    except (OSError, av.error.FFmpegError) as error:
        raise UserError(f"cannot write {path}: {error}; {mend_of(error) or 'name another place'}") from error


class Mp4Writer:
    """Writes H.264 frame by frame, so that a video of any length takes constant memory.

    Args:
      path: of the file.
      height, width: of the frames.
      fps: frames per second.
      scale: every pixel becomes a square of this side, so that small videos can be looked at.
      tags: metadata of the file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        height: int,
        width: int,
        fps: float,
        scale: int = 1,
        tags: Mapping[str, Any] | None = None,
    ):
        self._scale = scale
        options = {"movflags": "use_metadata_tags+faststart"}
        self._container = av.open(ffmpeg_name(path), "w", format="mp4", options=options)
        self._container.metadata.update({name: str(value) for name, value in (tags or {}).items()})
        self._stream = self._container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        # H.264's 4:2:0 wants even sides; the last row or column is repeated.
        self._stream.height, self._stream.width = (side * scale + side * scale % 2 for side in (height, width))
        self._stream.pix_fmt, self._stream.options = "yuv420p", {"crf": "16", "preset": "medium"}

    def add(self, video_TYXC: np.ndarray) -> None:
        """Appends uint8 RGB frames."""
        for frame_YXC in video_TYXC:
            frame = frame_YXC.repeat(self._scale, 0).repeat(self._scale, 1)
            pad = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
            frame = np.ascontiguousarray(np.pad(frame, pad, mode="edge"))
            self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def close(self, finish: bool = True) -> None:
        """Ends the file; `finish=False` after a failure."""
        try:
            if finish:
                self._container.mux(self._stream.encode())
        finally:
            self._container.close()


@contextlib.contextmanager
def mp4_writer(
    path: str | os.PathLike[str],
    size: tuple[int, int],
    fps: float,
    scale: int = 1,
    tags: Mapping[str, Any] | None = None,
) -> Iterator[Mp4Writer]:
    """An `Mp4Writer` of frames of (height, width), whose file is complete or not there at all.

    Raises:
      UserError: if it cannot be written.
    """
    with whole_file(path) as partial:
        writer = Mp4Writer(partial, *size, fps, scale, tags)
        try:
            yield writer
        except BaseException:
            with contextlib.suppress(OSError, av.error.FFmpegError):
                writer.close(finish=False)
            raise
        writer.close()


def write_mp4(
    path: str | os.PathLike[str],
    video_TYXC: np.ndarray,
    fps: float,
    scale: int = 1,
    tags: Mapping[str, Any] | None = None,
) -> None:
    """Writes uint8 RGB as H.264, complete or not at all; see `Mp4Writer`."""
    with mp4_writer(path, video_TYXC.shape[1:3], fps, scale, tags) as writer:  # type: ignore[arg-type]
        writer.add(video_TYXC)


def write_gif(path: str | os.PathLike[str], video_TYXC: np.ndarray, fps: float, scale: int = 1, text: str = "") -> None:
    """Writes an endless GIF with a comment, complete or not at all; its frame times are multiples of 10 ms."""
    frames = [Image.fromarray(frame) for frame in video_TYXC.repeat(scale, 1).repeat(scale, 2)]
    # Rounding every frame's end, not its length, keeps the whole's rate.
    ends = np.round(np.arange(len(frames) + 1) * 100 / fps).astype(int) * 10
    durations = [int(d) for d in np.maximum(np.diff(ends), 10)]
    with whole_file(path) as partial:
        frames[0].save(
            partial,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=durations,
            loop=0,
            disposal=1,
            comment=text.encode(),
        )


def write_npz(path: str | os.PathLike[str], video_TYXC: np.ndarray, fps: float, about: Mapping[str, Any]) -> None:
    """Writes the exact pixels: video, fps and a JSON string `about`; complete or not at all."""
    with whole_file(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, video=video_TYXC, fps=np.float64(fps), about=json.dumps(about))


def write_png(path: str | os.PathLike[str], image_YXC: np.ndarray) -> None:
    """Writes a PNG, complete or not at all.

    Raises:
      UserError: if it cannot be written.
    """
    with whole_file(path) as partial:
        Image.fromarray(image_YXC).save(partial, format="PNG")


def write_json(path: str | os.PathLike[str], values: Any) -> None:
    """Writes JSON, complete or not at all.

    Raises:
      UserError: if it cannot be written.
    """
    with whole_file(path) as partial:
        partial.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


GIVEN_COLOUR = (70, 110, 230)
"""Of the frame round a picture that was given, not generated."""


def strip(video_TYXC: np.ndarray, count: int = 8, scale: int = 1, given: int = 0) -> np.ndarray:
    """`count` frames evenly spread over the video, side by side, strip_YXC; the first `given` of the video in blue."""
    chosen = np.unique(np.linspace(0, len(video_TYXC) - 1, count).round().astype(int))
    frames = video_TYXC[chosen].repeat(scale, 1).repeat(scale, 2)
    width = max(1, scale // 2) if given else 1
    framed = np.pad(frames, ((0, 0), (width, width), (width, width), (0, 0)), constant_values=160)
    is_given = chosen < given
    for edge in (np.s_[:, :width], np.s_[:, -width:], np.s_[:, :, :width], np.s_[:, :, -width:]):
        side = framed[edge]
        side[is_given] = GIVEN_COLOUR
    return np.concatenate(list(framed), axis=1)
