"""Opening any file of this machine as a video or picture, by its content."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vdit.io.media.kinds import HEAD_BYTES, PICTURE_SUFFIXES, file_type, holds_sequence, picture_formats
from vdit.io.media.media import Media, Unreadable, reason
from vdit.io.media.pictures import open_picture
from vdit.io.media.videos import open_video


def open_media(path: str | os.PathLike[str], threads: int = 1) -> Media:
    """Opens a file of this machine, whatever its name says, by what is in it.

    Args:
      path: of the file.
      threads: of the decoder. With more than one, what a damaged file gives can vary from run to run.

    Raises:
      Unreadable: if it is neither a video nor a picture, or cannot be read.
    """
    path = os.fspath(path)
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):
            raise Unreadable(f"{file_type(mode)}, not a file")  # opening a FIFO would wait for ever
        with open(path, "rb") as file:
            head = file.read(HEAD_BYTES)
    except (OSError, ValueError) as error:
        raise Unreadable(reason(error)) from error
    if not head:
        raise Unreadable("the file is empty")
    formats = picture_formats(head)
    if formats and (formats == ("AVIF",) or not holds_sequence(head)):
        return open_picture(path, formats)
    try:
        return open_video(path, threads)
    except Unreadable as error:
        if formats:  # it may hold single pictures besides
            return open_picture(path, formats)
        if Path(path).suffix.lower() in PICTURE_SUFFIXES:
            raise Unreadable("not a readable picture: its content is of no known kind") from error
        raise
