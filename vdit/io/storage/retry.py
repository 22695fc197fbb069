"""Reading again what storage failed to give: network file systems and buckets have bad moments."""

from __future__ import annotations

import errno
import re
import sys
import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (0.1, 1.0, 5.0, 20.0)
"""Seconds before each further attempt."""

_NETWORK = ("aiohttp", "requests", "urllib3")
"""Libraries through which buckets are read, whose OSErrors tell of a network or server that does not answer."""

_TRANSIENT = (
    *(errno.EIO, errno.EAGAIN, errno.EINTR, errno.EBUSY, errno.ETIMEDOUT, errno.ESTALE),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
)

Result = TypeVar("Result")


def os_error(error: BaseException) -> int | None:
    """The number of the failed system call that an error tells of, or was raised from.

    TensorStore, which reads and writes checkpoints, tells of it as "... [os_error_code='5']".
    """
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if found := re.search(r"os_error_code='(\d+)'", str(error)):
        return int(found[1])
    return os_error(error.__cause__) if error.__cause__ else None


def is_transient(error: BaseException) -> bool:
    """Whether storage failed for a while, rather than what is stored being wrong, so that another attempt may succeed.

    Riegeli, which reads ArrayRecord, tells of a failed system call as "pread() failed: ..." and of damage as
    "Corrupted ...". TensorStore tells of a bucket that fails as "UNAVAILABLE: ...".
    """
    if (number := os_error(error)) is not None:
        return number in _TRANSIENT or number < 0  # negative: the name of a host was not found
    if isinstance(error, OSError) and type(error).__module__.split(".")[0] in _NETWORK:
        return True
    if isinstance(error, RuntimeError) and "() failed" in str(error):
        return True
    if str(error).startswith(("UNAVAILABLE:", "DEADLINE_EXCEEDED:")):
        return True
    return error.__cause__ is not None and is_transient(error.__cause__)


def retry_transient(read: Callable[[], Result], what: object) -> Result:
    """Calls `read`, and again after a while if it fails for a reason that `is_transient`.

    Raises:
      Exception: of the last attempt, or of the first that does not pass.
    """
    for wait in WAITS:
        try:
            return read()
        except Exception as error:
            if not is_transient(error):
                raise
            reason = " ".join(str(error).split())[:200]
            print(f"warning: reading {what} failed ({reason}); again in {wait:g} s", file=sys.stderr, flush=True)
        time.sleep(wait)
    return read()
