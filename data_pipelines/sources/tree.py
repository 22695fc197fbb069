"""What lies in a source folder: its files, and what cannot be read and why."""

from __future__ import annotations

import collections
import dataclasses
import os
import stat
from collections.abc import Iterator

from vdit.errors import UserError
from vdit.io import files
from vdit.io.disk_dict import DiskDict
from vdit.io.media.kinds import file_type
from vdit.io.names import printable
from vdit.io.storage import remote

_LITTER = (".ds_store", "thumbs.db", "desktop.ini")  # made by systems, not by users; so are the halves named ._NAME
HIDDEN = ".*"
"""Item under which hidden files are counted."""


@dataclasses.dataclass
class Tree:
    """A folder and all below it.

    Attributes:
      root: path or URL.
      sizes: bytes of each file by its name below the root, "/" between folders, printable; on the disk, in order.
      unread: what is no file that can be read, and why.
    """

    root: str
    sizes: DiskDict[int] = dataclasses.field(default_factory=DiskDict)
    unread: dict[str, str] = dataclasses.field(default_factory=dict)
    _paths: DiskDict[str] = dataclasses.field(default_factory=DiskDict)

    def path(self, name: str) -> str:
        """Path or URL of a file."""
        return f"{self.root}/{self._paths.get(name, name)}"

    def read(self, name: str, limit: int) -> bytes:
        """The bytes of a file.

        Raises:
          ValueError: if it is larger than `limit` bytes, or may not be read.
        """
        size = self.sizes[name]
        try:
            with remote.open_file(self.path(name), "rb") as file:
                data: bytes = b"" if size > limit else file.read(limit + 1)
        except (PermissionError, FileNotFoundError) as error:
            raise ValueError(error.strerror or "not readable") from error
        if max(len(data), size) > limit:
            raise ValueError(f"larger than {limit >> 20} MiB")
        return data

    def _add(self, name: str, size: int) -> None:
        self.sizes[shown := printable(name)] = size
        if shown != name:
            self._paths[shown] = name


def list_tree(root: str) -> Tree:
    """Lists a folder. Links to folders are followed, each folder being read once; hidden files are left out.

    Raises:
      UserError: if the folder cannot be read.
    """
    tree = Tree(root.rstrip("/") or "/")
    hidden = 0
    for name, size in _walk(tree) if not files.is_remote(root) else remote.walk(root):
        parts = name.lower().split("/")
        if parts[-1] in _LITTER or parts[-1].startswith("._"):
            continue
        if any(part.startswith(".") for part in parts):
            hidden += 1
        else:
            tree._add(name, size)
    if hidden:
        tree.unread[HIDDEN] = f"{hidden} hidden {'file is' if hidden == 1 else 'files are'} not read"
    return tree


def _walk(tree: Tree) -> Iterator[tuple[str, int]]:
    """(name, bytes) of the files of a folder of this machine; folders themselves come before links to them."""
    folders, links = collections.deque([""]), collections.deque[str]()
    seen: set[tuple[int, int]] = set()
    while folders or links:
        folder = folders.popleft() if folders else links.popleft()
        path = os.path.join(tree.root, folder)
        try:
            info = os.stat(path)
            if (info.st_dev, info.st_ino) in seen:
                tree.unread[printable(folder)] = "a link to a folder that is read already"
                continue
            seen.add((info.st_dev, info.st_ino))
            entries = sorted(os.scandir(path), key=lambda entry: os.fsencode(entry.name))
        except OSError as error:
            if not folder:
                raise UserError(f"--source={tree.root} gives nothing to read: {error.strerror}") from error
            tree.unread[printable(folder)] = f"a folder that cannot be read ({error.strerror})"
            continue
        for entry in entries:
            name = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                yield name, 0
                continue
            try:
                info = entry.stat()
            except OSError as error:
                why = "a link that leads nowhere" if entry.is_symlink() else f"it cannot be read ({error.strerror})"
                tree.unread[printable(name)] = why
                continue
            if stat.S_ISDIR(info.st_mode):
                (links if entry.is_symlink() else folders).append(name)
            elif stat.S_ISREG(info.st_mode):
                yield name, info.st_size
            else:
                tree.unread[printable(name)] = f"{file_type(info.st_mode)}, not a file"
