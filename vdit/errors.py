"""What ends a command in one line."""

from __future__ import annotations


class UserError(Exception):
    """A mistake of the user: its message is one line that names the field, file or flag and what would mend it."""

    status = 2
    """Exit status of a command that ends with it."""


class StorageError(UserError):
    """Storage fails, though nothing is wrong with what was asked of it: the same command may succeed later."""

    status = 74  # EX_IOERR
