"""Telling whether a file is still the one that a data set was built from."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from data_pipelines.media.clip import Input
from vdit.io.signature import file_signature

THREADS, BATCH = 32, 1024
"""Files that are read at once, as most of the time is spent waiting, and that wait to be."""


def sign(inputs: Iterable[Input]) -> Iterator[Input]:
    """The inputs with signatures of their files, which change when a file is replaced by one of equal size."""
    source = iter(inputs)
    with ThreadPoolExecutor(THREADS) as threads:
        while batch := list(itertools.islice(source, BATCH)):
            paths = list(dict.fromkeys(each.path for each in batch if each.path and not each.signature))
            signatures = dict(zip(paths, threads.map(_signature, paths), strict=True))
            for each in batch:
                known = each.signature or signatures.get(each.path, "")
                yield dataclasses.replace(each, signature=known)


def joint_signature(paths: Iterable[str]) -> str:
    """Of several files, in order."""
    return hashlib.sha256(" ".join(map(_signature, paths)).encode()).hexdigest()[:16]


def _signature(path: str) -> str:
    """Of one file; that of one that cannot be read is its error's name: its job will tell what is wrong with it."""
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            return "no regular file"  # a pipe would be waited for
        return file_signature(path)
    except OSError as error:
        return type(error).__name__
