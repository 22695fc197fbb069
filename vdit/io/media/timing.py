"""Which frames of a video are kept, so that motion stays even whatever its time stamps."""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from vdit.io.media.media import Frame, Media, Unreadable

LEAST_RATE, MOST_RATE = 1 / 60, 480.0
"""Frames per second that are believed."""

ROUNDING = 2e-3
"""Seconds by which stamps may be late: many containers round them to milliseconds."""

MOST_REPEATED = 1 / 3
"""An uneven video is put on the grid of its times if no more than this share of frames is repeated for that."""


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
      notes: what was changed, for the ledger.
    """

    fps_before: float
    fps: float
    step: int
    even: bool
    times: np.ndarray
    notes: tuple[str, ...]


def plan_timing(media: Media, wanted: float) -> Timing:
    """Decides from the time stamps alone.

    A rate above `wanted` (0 = no limit) is divided by the smallest whole number that brings it to `wanted` or below:
    every frame then stands for the same time. No frames are made up.

    Raises:
      Unreadable: if the frame rate cannot be believed.
    """
    times = media.times
    if len(times) < 2:
        return Timing(wanted or 1.0, wanted or 1.0, 1, True, times, ())
    # Stamps closer than a quarter of a frame are one frame: VP8 sends invisible ones.
    nominal = 1 / media.rate if media.rate else (times[-1] - times[0]) / (len(times) - 1)
    times = times[np.concatenate([[True], np.diff(times) > nominal / 4])]
    span = float(times[-1] - times[0])
    rate = (len(times) - 1) / span if span > 0 else media.rate
    even = span <= 0 or bool(np.abs(times - times[0] - np.arange(len(times)) / rate).max() * rate < 0.5)
    if even and media.rate and abs(rate / media.rate - 1) < 0.01:
        rate = media.rate  # stamps are rounded
    if not even and 0 <= media.grid_rate / rate - 1 < MOST_REPEATED:
        rate = media.grid_rate  # a few frames were dropped
    if not LEAST_RATE <= rate <= MOST_RATE:
        raise Unreadable(f"{rate:.3g} frames per second cannot be right")
    step = max(1, math.ceil(rate / wanted - 1e-3)) if wanted else 1
    notes = [] if even else [f"uneven frame times put on {rate / step:.4g} frames/s"]
    if step > 1:
        notes.append(f"kept 1 of {step} frames")
    return Timing(rate, rate / step, step, even, times, tuple(notes))


def evened(media: Media, timing: Timing) -> Iterator[tuple[int, Frame]]:
    """Decodes the file and yields (number, frame): every frame of an even video, else the one at each grid point.

    A frame that the file has and the decoder left out makes the next one a problem.
    """
    checked = _checked(media, timing.times)
    if timing.even:
        yield from checked
        return
    start, count = float(timing.times[0]), 0
    slack = min(ROUNDING, 0.25 / timing.fps)
    previous: Frame | None = None
    for _, frame in checked:
        while previous is not None and start + count / timing.fps < frame.time - slack:
            yield count, previous
            count += 1
        previous = frame
    if previous is not None:
        yield count, previous


def _checked(media: Media, times: np.ndarray) -> Iterator[tuple[int, Frame]]:
    """Numbers the decoded frames by their times, so that gaps are seen."""
    number, known = -1, times.tolist()  # NumPy is slow with single numbers
    for frame in media.frames():
        number += 1
        if number >= len(times) or not math.isfinite(frame.time):
            frame = frame._replace(time=known[min(number, len(times) - 1)])
        found = bisect.bisect_left(known, frame.time - 1e-6)
        gap = found > number and found < len(times)
        if gap:
            frame = frame._replace(problem=frame.problem or f"follows {found - number} missing frames")
            number = found
        yield number, frame
    if media.exact and number + 1 < len(times):
        raise Unreadable(f"the last {len(times) - 1 - number} of {len(times)} frames are missing")
