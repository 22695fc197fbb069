"""Cutting letterbox and pillarbox bars off: they are part of the file, not of the picture."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator

import numpy as np

from data_pipelines.media.measures import BAR_LEVEL, luma
from vdit.io.media.media import Frame, Media, Unreadable
from vdit.io.media.pixels import scale

UNEVEN = 0.02
"""Share of a side by which the bars at its two ends may differ in width: they come in pairs, shadows do not."""

LEAST_LEFT = 0.5
"""Share of a side that is left at least: a small light in the dark is no picture between bars."""

_Box = tuple[slice, slice]


def without_bars(media: Media) -> Media:
    """The same media without bars, which are told by all of its frames; itself if it has none.

    A row or column is part of a bar if no pixel of it is brighter than `measures.BAR_LEVEL` in any frame, so files with
    dark edges are decoded twice: of others the first frames tell.
    """
    brightest_YX = _brightest(media)
    box = _inside(brightest_YX.max(1)), _inside(brightest_YX.max(0))
    height, width = (side.stop - side.start for side in box)
    if (height, width) == (media.height, media.width):
        return media
    note = f"bars cut off: {width}x{height} left of {media.width}x{media.height}"
    frames = functools.partial(_cropped, media, box)
    return dataclasses.replace(media, height=height, width=width, notes=(*media.notes, note), frames=frames)


def _brightest(media: Media) -> np.ndarray:
    """Greatest luma of each pixel, as far as is needed to tell that there are no bars."""
    brightest_YX = np.zeros((media.height, media.width), np.uint8)
    with contextlib.suppress(Unreadable):  # who reads the clips will say so
        for frame in media.frames():
            if frame.problem:
                continue
            np.maximum(brightest_YX, luma(frame.rgb(media.height, media.width)), out=brightest_YX)
            edges = brightest_YX[[0, -1]].max(1), brightest_YX[:, [0, -1]].max(0)
            if all((edge > BAR_LEVEL).any() for edge in edges):  # bars come in pairs
                break
    return brightest_YX


def _inside(brightest: np.ndarray) -> slice:
    """What lies between the bars at both ends of a side, of which the brightest pixel of each line is given."""
    whole, lit = slice(0, len(brightest)), np.flatnonzero(brightest > BAR_LEVEL)
    if not len(lit):
        return whole
    before, after = int(lit[0]), len(brightest) - 1 - int(lit[-1])
    inside = slice(before, len(brightest) - after)
    is_pair = min(before, after) > 0 and abs(before - after) <= max(2, UNEVEN * len(brightest))
    return inside if is_pair and inside.stop - inside.start >= LEAST_LEFT * len(brightest) else whole


def _cropped(media: Media, box: _Box) -> Iterator[Frame]:
    for frame in media.frames():
        yield frame._replace(rgb=functools.partial(_crop, frame.rgb, (media.height, media.width), box))


def _crop(
    rgb: Callable[[int, int], np.ndarray], size: tuple[int, int], box: _Box, height: int, width: int
) -> np.ndarray:
    return scale(np.ascontiguousarray(rgb(*size)[box]), height, width)
