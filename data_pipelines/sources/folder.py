"""Source PATH: all videos and images of a folder tree, on this machine or in a bucket."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from data_pipelines.media.clip import Input, Options, Outcome, Rejection, hashed_split, limited
from data_pipelines.media.cutting import file_clips
from data_pipelines.sources.captions import KIND, complete, decode_text, is_table, read_tables
from vdit.errors import UserError
from vdit.io import remote
from vdit.io.media.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES

NAMESPACE = "folder"
_SUFFIXES = (*VIDEO_SUFFIXES, *IMAGE_SUFFIXES)


def inputs(root: str, options: Options) -> list[Input]:
    """Lists the files of a tree by name, with their captions.

    Files that a table names and the tree lacks are inputs too, so that the ledger tells of them.

    Raises:
      UserError: if there is no such folder, it holds no video or image, or a caption file cannot be understood.
    """
    root = root.rstrip("/") or "/"
    sizes = dict(remote.walk(root))
    # What is hidden is not meant: .git, and the halves of names that macOS writes beside files.
    sizes = {name: size for name, size in sizes.items() if not any(p.startswith(".") for p in name.split("/"))}
    media = {name for name in sizes if name.lower().endswith(_SUFFIXES)}
    if not media:
        hint = "it is empty or does not exist" if not sizes else f"it holds no {', '.join(_SUFFIXES)}"
        raise UserError(f"--source={root} gives nothing to read: {hint}")
    captions, splits = read_tables([name for name in sizes if is_table(name)], lambda n: _read(root, n))
    texts = {posixpath.splitext(name)[0]: name for name in sizes if name.lower().endswith(".txt")}
    for name in media:
        text = texts.get(posixpath.splitext(name)[0]) or texts.get(name)
        if text and KIND not in captions.get(name, {}):
            captions.setdefault(name, {})[KIND] = decode_text(text, _read(root, text))
    kinds = sorted({kind for found in captions.values() for kind in found}) or [KIND]
    listed = []
    for name in sorted(media | set(captions)):
        split = splits.get(name) or hashed_split(name, options.val)
        path = f"{root}/{name}" if name in media else ""
        listed.append(Input(name, split, path, sizes.get(name, 0), complete(captions.get(name, {}), kinds)))
    return limited(listed, options.limit)


def clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Everything that becomes of one file."""
    if not source.path:
        yield Rejection(source.item, source.split, "a caption table names it, but it is not there")
        return
    yield from file_clips(NAMESPACE, source, options)


def _read(root: str, name: str) -> bytes:
    return remote.read_bytes(f"{root}/{name}")
