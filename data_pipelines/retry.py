"""Reading again what storage failed to give: network file systems and buckets have bad moments."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (0.1, 1.0, 5.0, 20.0)
"""Seconds before each further attempt."""

_PASSING = (errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE, errno.ENETDOWN)

Result = TypeVar("Result")


def is_passing(error: Exception) -> bool:
    """Whether storage failed, rather than what is stored being wrong, so that another attempt may succeed.

    Riegeli, which reads ArrayRecord, tells of a failed system call as "pread() failed: ..." and of damage as
    "Corrupted ...".
    """
    if isinstance(error, OSError):
        return error.errno in _PASSING
    return isinstance(error, RuntimeError) and "() failed" in str(error)


def patiently(read: Callable[[], Result], what: object) -> Result:
    """Calls `read`, and again after a while if it fails for a reason that `is_passing`.

    Raises:
      Exception: of the last attempt, or of the first that does not pass.
    """
    for wait in WAITS:
        try:
            return read()
        except Exception as error:
            if not is_passing(error):
                raise
            reason = " ".join(str(error).split())[:200]
            print(f"warning: reading {what} failed ({reason}); again in {wait:g} s", file=sys.stderr, flush=True)
        time.sleep(wait)
    return read()
