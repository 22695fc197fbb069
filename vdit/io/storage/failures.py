"""What a failure of storage, or of a path, means to the user: one line instead of a traceback."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from vdit.errors import StorageError, UserError
from vdit.io.storage.retry import is_transient, os_error

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
MENDS = {
    **dict.fromkeys(FULL, "make room, and start the same command again"),
    **dict.fromkeys(FORBIDDEN, "give permission, or name another place"),
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP), "name another place"),
    errno.EEXIST: "name another place",
    errno.ENAMETOOLONG: "give it a shorter name",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files: `ulimit -n 65536`"),
}
"""What a user can do about a failed system call, by its number."""


def number_of(error: BaseException) -> int | None:
    """The number of the failed system call that an error tells of, itself, in its text, or as its cause."""
    for each in _chain(error):
        if (number := os_error(each)) is not None:
            return number
        for known in (*FULL, *FORBIDDEN):  # as libraries in C++ tell of it
            if os.strerror(known) in str(each):
                return known
    return None


def mend_of(error: BaseException) -> str | None:
    """What a user can do about an error of storage; None if nothing, as with one that may pass."""
    return MENDS.get(number_of(error) or 0)


def needed(error: BaseException) -> str | None:
    """What must be done before the same write can succeed, for want of room or permission; else None."""
    number = number_of(error)
    if number in FULL:
        return "make room"
    return "give permission" if number in FORBIDDEN or str(error).startswith("PERMISSION_DENIED:") else None


def as_user_error(error: BaseException, where: str = "") -> UserError | None:
    """The line for an error that storage has brought about; None if it is another, which is a fault of the program.

    What the user can mend is a UserError (status 2), what may pass by itself a StorageError (74).

    Args:
      error: whatever a command ends with.
      where: what is written to, said if the error does not say which file it is about.
    """
    number = number_of(error)
    if number in MENDS:
        return UserError(f"{_what(error, number, where)}; {MENDS[number]}")
    if any(is_transient(each) for each in _chain(error)):
        return StorageError(f"{_what(error, number, where)}; is its storage there? The same command may succeed later")
    return None


def _what(error: BaseException, number: int | None, where: str) -> str:
    """Which place failed, and how."""
    for each in _chain(error):
        if isinstance(each, OSError) and each.filename:
            return f"{os.fspath(each.filename)}: {each.strerror or os.strerror(each.errno or 0)}"
    text = " ".join(str(error).split())[:300]
    text = text if number is None or os.strerror(number) in text else f"{os.strerror(number)}: {text}"
    return f"{where}: {text}" if where else text


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from or in the handling of, and the parts of a group."""
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        each = todo.pop(0)
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        todo += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions
