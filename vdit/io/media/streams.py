"""What the packets of a container say: which stream is its video, and when its frames are shown."""

from __future__ import annotations

import array
import dataclasses
from collections import Counter

import av
import numpy as np

from vdit.io.media.alive import beat
from vdit.io.media.media import Unreadable

_COVERS = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
_TILE = av.stream.Disposition.dependent


_BARE = ("mpegvideo", "h264", "hevc", "m4v")
"""Streams without a container: they have no time stamps, and those that FFmpeg makes up are not even."""

USUAL_RATE = 25.0
"""Frames per second of a stream without times that does not say."""


@dataclasses.dataclass
class Packets:
    """What the packets of one stream say, in ticks.

    Attributes:
      tick: seconds.
      stamps: when each frame is shown, in the order of decoding.
      groups: of each stamp, how many key frames stand before or at it: packets of one number were encoded together.
      unstamped: packets that say neither when they are shown nor when they are decoded.
      exact: whether all say when they are shown (AVI has when they are decoded).
      last: when the last one ends.
      bytes: of all packets.
    """

    tick: float
    stamps: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    groups: array.array[int] = dataclasses.field(default_factory=lambda: array.array("q"))
    unstamped: int = 0
    exact: bool = True
    last: int = 0
    bytes: int = 0

    @property
    def frames(self) -> int:
        return max(len(self.stamps), self.unstamped)

    @property
    def ascend(self) -> np.ndarray:
        """Whether the stamps of a frame's group ascend in the order of decoding, of each frame by the order of times.

        By groups, as files that were put together may have right stamps in one part and none in another.
        """
        stamps_N, group_N = np.array(self.stamps, np.int64), np.array(self.groups, np.int64)
        falls_N = (np.diff(stamps_N) < 0) & (np.diff(group_N) == 0)
        falling = group_N[1:][falls_N]
        return ~np.isin(group_N, falling)[np.argsort(stamps_N, kind="stable")]

    @property
    def end(self) -> float:
        """Seconds."""
        return self.last * self.tick

    @property
    def span(self) -> float:
        """Seconds from the first frame to the last."""
        return (max(self.stamps) - min(self.stamps)) * self.tick if self.stamps else 0.0

    def times(self, rate: float) -> np.ndarray:
        """Seconds at which frames are shown, ascending; of a stream without times by its rate."""
        if not self.stamps:
            return np.arange(self.unstamped) / (rate or USUAL_RATE)
        return np.sort(np.array(self.stamps, np.float64)) * self.tick


def scan(container: av.container.InputContainer) -> dict[int, Packets]:
    """Reads all packets of a container, by stream."""
    bare = container.format.name in _BARE
    keys = Counter[int]()
    found = {stream.index: Packets(float(stream.time_base or 0)) for stream in container.streams}
    for packet in container.demux():
        beat()
        if not packet.size:  # the empty packet at the end; in AVI, a frame that was dropped
            continue
        mine = found[packet.stream_index]
        keys[packet.stream_index] += packet.is_keyframe
        mine.bytes += packet.size
        stamp = None if bare else packet.dts if packet.pts is None else packet.pts
        if stamp is None:
            mine.unstamped += 1
            mine.exact = False
            continue
        mine.last = max(mine.last, stamp + (packet.duration or 0))
        if not packet.is_discard:
            mine.stamps.append(stamp)
            mine.groups.append(keys[packet.stream_index])
            mine.exact &= packet.pts is not None
    return found


def choose_stream(
    container: av.container.InputContainer, packets: dict[int, Packets]
) -> tuple[av.VideoStream, tuple[str, ...]]:
    """The video of a container, and a note if it holds several: one flagged as default that moves, else the longest.

    Raises:
      Unreadable: if there is none. Covers and thumbnails are none, and tiles only parts of a picture.
    """
    streams = container.streams
    videos = [stream for stream in streams.video if not stream.disposition & (_COVERS | _TILE)]
    if not videos:
        if tiles := sum(bool(stream.disposition & _TILE) for stream in streams.video):
            raise Unreadable(f"a picture of {tiles} tiles, which cannot be put together")
        raise Unreadable("the file has sound only" if streams.audio else "the file has no video stream")
    videos = [stream for stream in videos if stream.codec_context]
    if not videos:
        raise Unreadable("no decoder knows the codec of the video")
    moving = [stream for stream in videos if packets[stream.index].frames > 1] or videos
    default = [stream for stream in moving if stream.disposition & av.stream.Disposition.default]
    among = default or moving
    chosen = max(among, key=lambda stream: (packets[stream.index].span, packets[stream.index].frames, -stream.index))
    if len(videos) == 1:
        return chosen, ()
    why = "the default" if len(default) == 1 else "the longest"
    return chosen, (f"{why} of {len(videos)} video streams, number {videos.index(chosen) + 1}",)
