"""Clips that can be left out: black ones, and videos in which nothing moves."""

from __future__ import annotations

import numpy as np

from vdit.errors import UserError

FILTERS = ("black", "frozen")

BLACK_LEVEL, BLACK_SHARE = 26, 0.98
"""A frame is black if so large a share of its values lies below a tenth of white (as FFmpeg's blackdetect has it)."""

FROZEN_DIFFERENCE = 0.255
"""A frame repeats the one before if their mean difference is at most a thousandth of white (as freezedetect has it)."""


def parse_filters(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    """Checks filter names.

    Raises:
      UserError: if one is unknown.
    """
    if unknown := [name for name in names if name not in FILTERS]:
        raise UserError(f"--reject={unknown[0]!r} is unknown; choose from {', '.join(FILTERS)}")
    return tuple(sorted(set(names)))


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
