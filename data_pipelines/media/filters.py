"""Clips that can be left out: black ones, videos in which nothing moves, and those that meet a condition."""

from __future__ import annotations

import numpy as np

from vdit.errors import UserError
from vdit.expressions import Condition, parse_condition

DUPLICATE = "duplicate"
"""Clips that look like another one, which is known when all are built; see `building.rejecting`."""

FILTERS = ("black", "frozen", DUPLICATE)

MEASURES = ("motion", "sharpness", "brightness", "contrast", "bars", "still", "cuts")
"""What `measures.measure` gives."""

FILE_MEASURES = ("bits_per_pixel",)
"""What is known of a clip's file; NaN of one that was no file."""

SUBJECT_MEASURES = ("subject_x0", "subject_y0", "subject_x1", "subject_y1")
"""Box of the main subject in the frame in the middle of a clip, in 0..1 from the top left; NaN if there is none."""

BLACK_LEVEL, BLACK_SHARE = 26, 0.98
"""A frame is black if so large a share of its values lies below a tenth of white (as FFmpeg's blackdetect has it)."""

FROZEN_DIFFERENCE = 0.255
"""A frame repeats the one before if their mean difference is at most a thousandth of white (as freezedetect has it)."""


def parse_filters(wanted: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Checks what clips are to be left out: names of `FILTERS`, and conditions on measures.

    Raises:
      UserError: if one is neither, or names no measure.
    """
    for condition in reject_conditions(tuple(wanted)):
        if DUPLICATE in condition.names:
            raise UserError(
                f"--reject={condition.text!r}: duplicates are known only when all clips are built; write "
                f"--reject={DUPLICATE}, or leave them out in training, with data.filter='{DUPLICATE} == 0'"
            )
        condition(dict.fromkeys((*MEASURES, *FILE_MEASURES, *SUBJECT_MEASURES), 0.0))
    return tuple(sorted({each.strip() for each in wanted}))


def reject_conditions(wanted: tuple[str, ...]) -> list[Condition]:
    """Those of what is to be left out that are conditions on measures.

    Raises:
      UserError: if one can be neither that nor a name of `FILTERS`.
    """
    conditions = []
    for text in wanted:
        if text.strip().isidentifier() and text.strip() not in FILTERS:
            raise UserError(
                f"--reject={text.strip()!r} is unknown; choose from {', '.join(FILTERS)}, or compare a measure, as in "
                f"'motion<0.02': {', '.join((*MEASURES, *FILE_MEASURES))}"
            )
        if text.strip() not in FILTERS:
            conditions.append(parse_condition(text, "--reject"))
    return conditions


def reject_reason(video_TYXC: np.ndarray, filters: tuple[str, ...]) -> str:
    """Why a clip is left out; empty if it is not. An image is never frozen."""
    if "black" in filters and all((frame < BLACK_LEVEL).mean() >= BLACK_SHARE for frame in video_TYXC):
        return "black"
    pairs = zip(video_TYXC[:-1], video_TYXC[1:], strict=True)
    if "frozen" in filters and len(video_TYXC) > 1 and all(_difference(a, b) <= FROZEN_DIFFERENCE for a, b in pairs):
        return "frozen: nothing moves"
    return ""


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.int16) - b).mean())
