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
from vdit.io.storage.signature import file_signature

THREADS, BATCH = 32, 32
"""Threads, as most of the time of files behind a network is spent waiting, and files that one is given at a time:
handing them over one by one takes longer than reading tiny ones."""


def sign(inputs: Iterable[Input]) -> Iterator[Input]:
    """The inputs with signatures of their files, which change when a file is replaced by one of equal size."""
    source = iter(inputs)
    with ThreadPoolExecutor(THREADS) as threads:
        while batch := list(itertools.islice(source, THREADS * BATCH)):
            paths = list(dict.fromkeys(each.path for each in batch if each.path and not each.signature))
            parts = [paths[start : start + BATCH] for start in range(0, len(paths), BATCH)]
            signatures = dict(zip(paths, itertools.chain(*threads.map(_signatures, parts)), strict=True))
            for each in batch:
                known = each.signature or signatures.get(each.path, "")
                yield dataclasses.replace(each, signature=known)


def joint_signature(paths: Iterable[str]) -> str:
    """Of several files, in order."""
    return hashlib.sha256(" ".join(map(_signature, paths)).encode()).hexdigest()[:16]


def _signatures(paths: list[str]) -> list[str]:
    return [_signature(path) for path in paths]


def _signature(path: str) -> str:
    """Of one file; that of one that cannot be read is its error's name: its job will tell what is wrong with it."""
    try:
        if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
            return "no regular file"  # a pipe would be waited for
        return file_signature(path)
    except OSError as error:
        return type(error).__name__
