"""Source PATH: all videos and pictures of a folder tree, on this machine or in a bucket."""

from __future__ import annotations

import collections
import heapq
import posixpath
import sys
from collections.abc import Iterable, Iterator

from data_pipelines.media.clip import Input, Options, Outcome, Rejection, first_of, hashed_split, quotas
from data_pipelines.media.cutting import file_clips
from data_pipelines.sources.captions import (
    KIND,
    TABLE_BYTES,
    TEXT_BYTES,
    Row,
    Tables,
    complete,
    decode_text,
    is_table,
    join_rows,
    read_table,
    relative_to_table,
)
from data_pipelines.sources.fitting import Fitter, normal_name
from data_pipelines.sources.tree import Tree, list_tree
from vdit.errors import UserError
from vdit.io.disk_dict import DiskDict
from vdit.io.media.kinds import MEDIA_SUFFIXES

NAMESPACE = "folder"
MISSING = "a caption table names it, but it is not there"


def inputs(root: str, options: Options) -> Iterator[Input]:
    """Lists the files of a tree by name, with their captions.

    Files that a table names and the tree lacks are inputs too, and so are folders that cannot be read and kinds of file
    that are not read, so that the ledger has them.

    Raises:
      UserError: if there is no such folder, it holds no video or picture, a caption table cannot be understood, or a
        table names no file of the tree.
    """
    tree = list_tree(root)
    if next(_media(tree), None) is None:
        hint = "it holds no video or picture" if tree.sizes else "it is empty or does not exist"
        raise UserError(f"--source={tree.root} gives nothing to read: {hint}{_reasons(tree)}")
    tables = _read_tables(tree)
    texts, used = _find_texts(tree), DiskDict[bool]()
    for name, text in texts.items():
        used[text] = True
        if KIND not in tables.captions.get(name, {}):
            _read_text(tree, text, name, tables)
    unread = tree.unread | _count_unread(
        name for name in tree.sizes if not (is_media(name) or is_table(name) or name in used)
    )
    return _inputs(tree, tables, options, unread)


def _inputs(tree: Tree, tables: Tables, options: Options, unread: dict[str, str]) -> Iterator[Input]:
    kinds = sorted(tables.kinds) or [KIND]

    def split_of(name: str) -> str:
        return tables.splits.get(name) or hashed_split(name, options.val)

    def listed() -> Iterator[Input]:
        there = ((name, size, "") for name, size in tree.sizes.entries() if is_media(name))
        strangers = (name for name in tables.captions if not (is_media(name) and name in tree.sizes))
        for name, size, why in heapq.merge(there, ((name, tree.sizes.get(name, 0), MISSING) for name in strangers)):
            captions, path = complete(tables.captions.get(name, {}), kinds), "" if why else tree.path(name)
            yield Input(name, split_of(name), path, size, captions, why, tuple(tables.notes.get(name, ())))

    if options.limit:
        counts = quotas(collections.Counter(each.split for each in listed()), options.limit)
        yield from first_of(listed(), counts)
    else:
        yield from listed()
    for name, why in sorted(unread.items()):
        if name not in tables.captions:
            yield Input(name, "train", data=why)


def is_media(name: str) -> bool:
    """Whether a file is a video or a picture by its name."""
    return name.lower().endswith(MEDIA_SUFFIXES)


def _media(tree: Tree) -> Iterator[str]:
    return filter(is_media, tree.sizes)


def clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Everything that becomes of one file."""
    if not source.path:
        yield Rejection(source.item, source.split, source.data)
        return
    yield from file_clips(NAMESPACE, source, options)


def _read_tables(tree: Tree) -> Tables:
    """What the tables of a tree say of its files; rows that fit none keep the names they give."""
    names = list(filter(is_table, tree.sizes))
    return join_rows(_fitted_rows(tree, names)) if names else Tables()


def _fitted_rows(tree: Tree, tables: list[str]) -> Iterator[tuple[str, Row]]:
    """The rows of all tables, each with the file it means; one table at a time is held in memory."""
    fitter = Fitter(_media(tree), posixpath.basename(tree.root))
    for name in tables:
        try:
            mine = read_table(name, tree.read(name, TABLE_BYTES))
        except ValueError as error:
            tree.unread[name] = f"a caption table that cannot be read: {error}"
            continue
        found = fitter.fit(mine)
        tree.unread.update({f"{name} row {row.line}": "the row names no file" for row in mine if not row.path})
        if strangers := [row for row, file in zip(mine, found, strict=True) if not file]:
            example = f"such as {strangers[0].path!r} in row {strangers[0].line}"
            if not any(found):
                raise UserError(
                    f"none of the {len(mine)} rows of {name} fits a file of {tree.root}, {example}; "
                    "name files relative to the table or to the folder"
                )
            print(f"warning: {len(strangers)} of {len(mine)} rows of {name} fit no file, {example}", file=sys.stderr)
        named = zip(mine, found, strict=True)
        yield from ((file or relative_to_table(row), row) for row, file in named if row.path)


def _find_texts(tree: Tree) -> DiskDict[str]:
    """The .txt beside each file: of its name exactly, else one that is left over and alone alike."""
    texts, found = DiskDict[str](), DiskDict[str]()
    for name in tree.sizes:
        if name.lower().endswith(".txt"):
            texts[posixpath.splitext(name)[0]] = name
    if not texts:
        return found
    taken, alike = DiskDict[bool](), DiskDict[list[str]]()
    for name in _media(tree):
        if text := texts.get(posixpath.splitext(name)[0]) or texts.get(name):
            found[name] = text
            taken[text] = True
    for stem, text in texts.items():
        if text not in taken:
            normal = normal_name(stem)
            alike[normal] = [*alike.get(normal, []), text]
    for name in _media(tree) if alike else ():
        rest = alike.get(normal_name(posixpath.splitext(name)[0]), [])
        if name not in found and len(rest) == 1:
            found[name] = rest[0]
    return found


def _read_text(tree: Tree, text: str, name: str, tables: Tables) -> None:
    """Adds the caption in a .txt, or a note why there is none, to those of a file."""
    try:
        tables.add(name, {KIND: decode_text(text, tree.read(text, TEXT_BYTES))})
    except (ValueError, UserError) as error:
        why = str(error) if text in str(error) else f"{text}: {error}"
        tables.note(name, f"caption left out ({why})")


def _count_unread(names: Iterable[str]) -> dict[str, str]:
    """How many files of each kind are not read."""
    counts = collections.Counter(posixpath.splitext(name)[1].lower() for name in names)
    return {
        f"*{suffix}": f"{count} {'file' if count == 1 else 'files'} not read: "
        + ("beside no video or picture of that name" if suffix == ".txt" else "neither a video nor a picture by name")
        for suffix, count in counts.items()
    }


def _reasons(tree: Tree) -> str:
    """The first things that cannot be read, in brackets."""
    shown = [f"{name}: {why}" for name, why in sorted(tree.unread.items())[:3]]
    return f" ({'; '.join(shown)})" if shown else ""
