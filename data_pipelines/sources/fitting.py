"""Which file of a tree a row of a caption table means, where the table was written on another machine or by hand."""

from __future__ import annotations

import collections
import posixpath
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from data_pipelines.sources.captions import Row, relative_to_table
from vdit.io.disk_dict import DiskDict


class Fitter:
    """Finds the files that rows mean.

    A name counts exactly if it is one below the table's folder or the root. Else blanks around it, case, composed and
    decomposed accents, backslashes, a missing suffix, and what stands before the root's own part of an absolute path
    make no difference, as long as one file alone fits, and no other row of the table means it.

    Args:
      names: of all files of the tree.
      root: name of the tree's folder.
    """

    def __init__(self, names: Iterable[str], root: str) -> None:
        self._names, self._alike = DiskDict[bool](), DiskDict[list[str]]()
        self._root = normal_name(root)
        for name in names:
            self._names[name] = True
            for alike in {normal_name(name), normal_name(posixpath.splitext(name)[0])}:
                self._alike[alike] = [*self._alike.get(alike, []), name]

    def fit(self, rows: Sequence[Row]) -> list[str]:
        """The file of each row of one table; empty where none, or none alone, fits."""
        exact = [self._exact(row) for row in rows]
        taken = set(exact)
        loose = ["" if found else self._loose(row) for row, found in zip(rows, exact, strict=True)]
        writings: dict[str, set[str]] = collections.defaultdict(set)
        for row, name in zip(rows, loose, strict=True):
            writings[name].add(normal_name(row.path))
        alone = {name for name, written in writings.items() if len(written) == 1 and name not in taken}
        return [one or (other if other in alone else "") for one, other in zip(exact, loose, strict=True)]

    def _exact(self, row: Row) -> str:
        for name in (relative_to_table(row), posixpath.normpath(row.path)):
            if row.path and name in self._names:
                return name
        return ""

    def _loose(self, row: Row) -> str:
        """The one file that fits best."""
        folder = normal_name(posixpath.dirname(row.table))
        for tail in self._tails(normal_name(row.path)):
            for name in dict.fromkeys((posixpath.join(folder, tail), tail)):
                if found := set(self._alike.get(name, ())):
                    return found.pop() if len(found) == 1 else ""
        return ""

    def _tails(self, path: str) -> Iterator[str]:
        """The path, then its ends: first that after the root's own name, then the longest."""
        parts = [part for part in path.split("/") if part]
        if not parts:
            return
        yield "/".join(parts)
        if ".." in parts:  # that is meant to lie elsewhere
            return
        order = sorted(range(1, len(parts)), key=lambda i: parts[i - 1] != self._root)
        yield from ("/".join(parts[i:]) for i in order)


def normal_name(path: str) -> str:
    """The same for all ways to write a path that mean one file."""
    path = re.sub("^[a-z]+://", "/", path.strip().replace("\\", "/"), flags=re.IGNORECASE)
    path = posixpath.normpath(path) if path else ""
    return "/".join(unicodedata.normalize("NFC", part.strip()).casefold() for part in path.split("/"))
