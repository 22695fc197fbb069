"""Which frames of a video are kept, so that motion stays even whatever its time stamps."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections import deque
from collections.abc import Iterator
from itertools import islice

import numpy as np

from vdit.io.media.media import Frame, Media, Unreadable

LEAST_RATE, MOST_RATE = 1 / 60, 480.0
"""Frames per second that are believed."""

ROUNDING = 2e-3
"""Seconds by which stamps may be late: many containers round them to milliseconds."""

SLACK = 0.01
"""A rate that exceeds the wanted one by this share counts as the wanted one: phones and NTSC are never exact."""

USUAL_SHARE, MOST_GROWN = 2 / 3, 4
"""An uneven video is put on the grid of its usual interval if so large a share of all are that long, and it does not
become so many times longer by repeated frames."""

REORDER = 17
"""Frames that a decoder may hold back to put them in order (16 in H.264 and HEVC), and the one itself."""


@dataclasses.dataclass(frozen=True)
class Timing:
    """How frames are chosen.

    Attributes:
      fps_before: frames per second of the file.
      fps: of what is kept.
      step: every step-th frame of an even video is kept, counted from where a shot begins.
      even: whether its frames are evenly spaced. The frames of others are put on an even grid of rate `fps`: at each
        point the one that is seen then.
      times: seconds at which frames are shown, ascending and distinct.
      starts: the same from 0, of an uneven video moved to where its grid shows every frame, if it does.
      notes: what was changed, for the ledger.
    """

    fps_before: float
    fps: float
    step: int
    even: bool
    times: np.ndarray
    starts: np.ndarray
    notes: tuple[str, ...]

    @property
    def length(self) -> int:
        """Frames that are kept of the whole file."""
        if self.even:
            return -(-len(self.times) // self.step)
        return int(self.starts[-1] * self.fps + 1e-6) + 1


def plan_timing(media: Media, wanted: float) -> Timing:
    """Decides from the time stamps alone.

    A rate above `wanted` (0 = no limit) is divided by the smallest whole number that brings it to `wanted` or below:
    every frame then stands for the same time. No frames are made up.

    Raises:
      Unreadable: if the frame rate cannot be believed.
    """
    times = distinct_times(media)
    starts = times - times[:1]
    if len(times) < 2:
        return Timing(wanted or 1.0, wanted or 1.0, 1, True, times, starts, ())
    span = float(starts[-1])
    rate = (len(times) - 1) / span if span > 0 else media.rate
    even = span <= 0 or bool(np.abs(starts - np.arange(len(times)) / rate).max() * rate < 0.5)
    if even and media.rate and abs(rate / media.rate - 1) < 0.01:
        rate = media.rate  # stamps are rounded
    if not even and (usual := _usual_rate(media, starts)):
        rate = usual
        order = np.arange(len(starts))
        starts = (order + np.maximum.accumulate(np.round(starts * rate) - order)) / rate
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise Unreadable(f"{rate:.3g} frames per second cannot be right")
    step = max(1, math.ceil(rate / (wanted * (1 + SLACK)) - 1e-9)) if wanted else 1
    notes = [] if even else [f"uneven frame times put on {rate / step:.4g} frames/s"]
    if step > 1:
        notes.append(f"kept 1 of {step} frames")
    if wanted and rate / step > wanted * (1 + 1e-4):
        notes.append(f"{rate / step:.5g} frames/s taken for {wanted:g}")
    return Timing(rate, rate / step, step, even, times, starts, tuple(notes))


def distinct_times(media: Media) -> np.ndarray:
    """Times of a file's frames; stamps closer than a quarter of a frame are one frame, as VP8 sends invisible ones."""
    times = media.times
    if len(times) < 2:
        return times
    nominal = 1 / media.rate if media.rate else (times[-1] - times[0]) / (len(times) - 1)
    return times[np.concatenate([[True], np.diff(times) > nominal / 4])]


def _usual_rate(media: Media, starts: np.ndarray) -> float:
    """Frames per second of a grid on which every frame has a point, despite pauses and dropped frames; 0 = none."""
    intervals = np.diff(starts)
    middle = float(np.median(intervals))
    usual = np.abs(intervals / middle - 1) < 0.5
    if usual.mean() < USUAL_SHARE or intervals.min() < middle / 2 - ROUNDING:
        return 0.0
    rate = 1 / float(intervals[usual].mean())
    if starts[-1] * rate > MOST_GROWN * len(starts):
        return 0.0
    known = (each for each in (media.grid_rate, media.rate) if each and abs(rate / each - 1) < 0.01)
    return next(known, rate)


def evened(media: Media, timing: Timing) -> Iterator[tuple[int, int, Frame]]:
    """Decodes and yields (place, number, frame): every frame of an even video, else the one at each point of the grid.

    The number counts frames of the file, the place those that are yielded, so that it is distinct. A frame that the
    file has and the decoder left out makes the next one a problem.
    """
    frames = numbered(media, timing.times)
    if timing.even:
        yield from ((number, number, frame) for number, frame in frames)
        return
    place, starts = 0, timing.starts.tolist()
    slack = min(ROUNDING, 0.25 / timing.fps)
    previous: tuple[int, Frame] | None = None
    for number, frame in frames:
        while previous is not None and place / timing.fps < starts[number] - slack:
            yield place, *previous
            place += 1
        previous = number, frame
    if previous is not None:
        yield place, *previous


def numbered(media: Media, times: np.ndarray) -> Iterator[tuple[int, Frame]]:
    """Decodes a file and numbers its frames by `distinct_times`, so that gaps are seen.

    Decoders give frames in the order of showing. Where that is not the order of their stamps, and these ascend in the
    order of decoding, stamps are no times of showing: so it is in AVI, and in files, or parts of them, that were
    remuxed without the offsets of MP4. From there on the i-th frame is shown at the i-th time.

    Raises:
      Unreadable: where the file breaks off, or if frames are missing at its end.
    """
    known, places = times.tolist(), np.searchsorted(times, media.times, "right") - 1
    stamps, doubted, last_stamp = media.times.tolist(), media.unordered.tolist(), len(media.times) - 1
    source, number = _Ahead(media.frames()), -1
    given, ordered, last = -1, True, -math.inf
    for frame in source:
        given += 1
        doubtful = math.isfinite(frame.time) and doubted[bisect.bisect_left(stamps, frame.time - 1e-6, hi=last_stamp)]
        ordered = ordered and not (doubtful and frame.time < last)
        at = bisect.bisect_right(known, frame.time + 1e-6) - 1 if math.isfinite(frame.time) else number + 1
        if ordered and doubtful and at > number + 1:
            ordered = not any(each.time < frame.time for each in source.look(REORDER))
        last = frame.time
        if not ordered:
            at = int(places[given]) if given < len(places) else len(known)
        if max(at, number + 1) >= len(known) or (at == number >= 0 and len(known) < len(places)):
            continue  # more frames than packets, or two at one time
        if at > number + 1:
            frame = frame._replace(problem=frame.problem or f"follows {at - number - 1} missing frames")
        number = max(at, number + 1)
        yield number, frame._replace(time=known[number])
    if media.exact and number + 1 < len(known):
        raise Unreadable(f"the last {len(known) - 1 - number} of {len(known)} frames are missing")


class _Ahead:
    """Frames one after another, of which the next few can be looked at; an error comes in its place."""

    def __init__(self, frames: Iterator[Frame]) -> None:
        self._frames, self._held = frames, deque[Frame]()
        self._error: Unreadable | None = None

    def __iter__(self) -> Iterator[Frame]:
        while True:
            if not self._held:
                self.look(1)
            if not self._held:
                break
            yield self._held.popleft()
        if self._error:
            raise self._error

    def look(self, count: int) -> list[Frame]:
        """The next `count` frames, or as many as there are before the end or an error."""
        try:
            if self._error is None:
                self._held.extend(islice(self._frames, max(0, count - len(self._held))))
        except Unreadable as error:
            self._error = error
        return list(self._held)
