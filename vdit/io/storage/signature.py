"""Telling cheaply whether a file is still the one it was."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np

from vdit.io.storage import remote

WHOLE = 16 << 20
"""Files of up to so many bytes are read whole."""

SAMPLE, SAMPLES = 64 << 10, 8
"""Of larger ones, bytes of a sample, and samples: the first begins the file, the last ends it."""


def file_signature(path: Any) -> str:
    """16 hex digits of what is in a file, on this machine or behind a URL; another of equal size has others.

    Nothing but the content counts, so copies have the same. Media and compressed records differ nearly everywhere
    where one thing in them does; a change of a large file that falls between the samples and moves nothing else is not
    seen.

    Raises:
      OSError: if it cannot be read.
    """
    sha = hashlib.sha256()
    with remote.open_file(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        sha.update(str(size).encode())
        whole = size <= WHOLE
        for place in [0] if whole else np.linspace(0, size - SAMPLE, SAMPLES).astype(int).tolist():
            file.seek(place)
            sha.update(file.read(size if whole else SAMPLE))
    return sha.hexdigest()[:16]
