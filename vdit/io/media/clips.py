"""Pictures and clips that a user names, at the frame rate and size that are asked for."""

from __future__ import annotations

import dataclasses
import os
import zipfile
from pathlib import Path

import numpy as np

from vdit.errors import UserError
from vdit.io.media.media import Media, Unreadable, array_media, reason
from vdit.io.media.opening import open_media
from vdit.io.media.timing import SLACK, distinct_times, numbered, plan_timing


@dataclasses.dataclass(frozen=True)
class GivenClip:
    """A clip, opened but not read: its frames are scaled one by one as they are decoded.

    Attributes:
      what: the flag and the file, for messages.
      media: the file.
      numbers_T: which frame of the file is shown at each frame of the clip, ascending.
    """

    what: str
    media: Media
    numbers_T: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.numbers_T)

    @property
    def height(self) -> int:
        return self.media.height

    @property
    def width(self) -> int:
        return self.media.width

    def choose(self, numbers_T: np.ndarray) -> GivenClip:
        """A clip of other frames of the same file."""
        return dataclasses.replace(self, numbers_T=numbers_T)

    def first(self, frames: int) -> GivenClip:
        """The first frames."""
        return self.choose(self.numbers_T[:frames])

    def read(self, height: int, width: int) -> np.ndarray:
        """Its frames, area-averaged to a size, video_TYXC uint8.

        Where a file begins with frames that cannot be decoded, as one that was cut without being encoded anew, the
        first one that can be stands for them.

        Raises:
          UserError: if another one cannot be decoded.
        """
        wanted_T = self.numbers_T
        video_TYXC = np.empty((len(wanted_T), height, width, 3), np.uint8)
        done, begun = 0, False
        try:
            for number, frame in numbered(self.media, distinct_times(self.media)):
                if done == len(wanted_T):
                    break
                if frame.problem and begun and number >= wanted_T[done]:
                    raise Unreadable(f"frame {number} {frame.problem}")
                begun = begun or not frame.problem
                if begun and number >= wanted_T[done]:
                    count = int(np.searchsorted(wanted_T, number, "right")) - done
                    video_TYXC[done : done + count] = frame.rgb(height, width)
                    done += count
            if done < len(wanted_T):
                raise Unreadable(f"it ends before frame {wanted_T[done]}")
        except Unreadable as error:
            raise UserError(f"{self.what}: {error}") from error
        return video_TYXC


def open_clip(path: str | os.PathLike[str], fps: float, flag: str = "--head") -> GivenClip:
    """Opens a clip to be read at `fps` frames per second: the frame that is shown at each time is taken.

    Args:
      path: a video or animation, a .npz as `video.write_npz` writes it, or a picture, which is a clip of one frame.
      fps: rate that is wanted.
      flag: what the user called it, for messages.

    Raises:
      UserError: if it cannot be read.
    """
    what = f"{flag}={path} cannot be read as a clip"
    media = _open(path, what)
    try:
        timing = plan_timing(media, 0)
    except Unreadable as error:
        raise UserError(f"{what}: {error}") from error
    if len(timing.times) < 2:
        return GivenClip(what, media, np.arange(len(timing.times)))
    starts_T = np.arange(len(timing.times)) / timing.fps if timing.even else timing.starts
    rate = timing.fps
    if abs(rate / fps - 1) <= SLACK:  # as a build does
        starts_T, rate = starts_T * rate / fps, fps
    wanted_T = np.arange(max(1, round((starts_T[-1] + 1 / rate) * fps))) / fps
    return GivenClip(what, media, np.searchsorted(starts_T, wanted_T + 1e-4, side="right") - 1)


def open_image(path: str | os.PathLike[str], flag: str = "--image") -> GivenClip:
    """Opens a picture as a clip of one frame; of an animation or video the first is taken.

    Args:
      path: of the file.
      flag: what the user called it, for messages.

    Raises:
      UserError: if it cannot be read.
    """
    what = f"{flag}={path} cannot be read as an image"
    return GivenClip(what, _open(path, what), np.zeros(1, int))


def read_clip(path: str | os.PathLike[str], fps: float, flag: str = "--head") -> np.ndarray:
    """A clip at its own size, video_TYXC uint8; see `open_clip`."""
    clip = open_clip(path, fps, flag)
    return clip.read(clip.height, clip.width)


def read_image(path: str | os.PathLike[str], flag: str = "--image") -> np.ndarray:
    """A picture at its own size, image_YXC uint8; see `open_image`."""
    clip = open_image(path, flag)
    return clip.read(clip.height, clip.width)[0]


def _open(path: str | os.PathLike[str], what: str) -> Media:
    if "://" in os.fspath(path):
        raise UserError(f"{what}: it is a URL; copy the file to this machine first")
    try:
        return _open_npz(path) if Path(path).suffix == ".npz" else open_media(path)
    except Unreadable as error:
        raise UserError(f"{what}: {error}") from error


def _open_npz(path: str | os.PathLike[str]) -> Media:
    try:
        with np.load(path, allow_pickle=False) as file:
            video_TYXC, rate = file["video"], float(file["fps"])
        if video_TYXC.ndim != 4 or video_TYXC.shape[-1] != 3 or video_TYXC.dtype != np.uint8 or not video_TYXC.size:
            raise ValueError(f"its video is {video_TYXC.dtype}{list(video_TYXC.shape)}, not uint8 frames of RGB")
        if not 0 < rate < np.inf:
            raise ValueError(f"its rate is {rate:g} frames per second")
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise Unreadable(reason(error)) from error
    return array_media(video_TYXC, rate)
