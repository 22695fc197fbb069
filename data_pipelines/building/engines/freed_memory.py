"""Memory for large arrays one after another: kept when freed, instead of fetched anew."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of malloc.h
_KEPT = 1 << 30


def keep_freed_memory() -> None:
    """Has this process keep up to 1 GiB of freed memory for what it asks for next.

    By default glibc maps a block of 32 MiB or more anew each time, and the system has to clear all of it, one page
    fault for every 4 KiB: for clips that costs more than copying them. Where there is no glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_MAX, 0)
