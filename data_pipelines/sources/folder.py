"""Source PATH: all videos and pictures of a folder tree, on this machine or in a bucket."""

from __future__ import annotations

import collections
import posixpath
import sys
from collections.abc import Iterator

from data_pipelines.media.clip import Input, Options, Outcome, Rejection, hashed_split, limited
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
from vdit.io.media.kinds import MEDIA_SUFFIXES

NAMESPACE = "folder"
MISSING = "a caption table names it, but it is not there"


def inputs(root: str, options: Options) -> list[Input]:
    """Lists the files of a tree by name, with their captions.

    Files that a table names and the tree lacks are inputs too, and so are folders that cannot be read and kinds of file
    that are not read, so that the ledger has them.

    Raises:
      UserError: if there is no such folder, it holds no video or picture, a caption table cannot be understood, or a
        table names no file of the tree.
    """
    tree = list_tree(root)
    media = {name for name in tree.sizes if name.lower().endswith(MEDIA_SUFFIXES)}
    if not media:
        hint = "it holds no video or picture" if tree.sizes else "it is empty or does not exist"
        raise UserError(f"--source={tree.root} gives nothing to read: {hint}{_reasons(tree)}")
    tables = _read_tables(tree, media)
    texts = _find_texts(tree, media)
    for name, text in texts.items():
        if KIND not in tables.captions.get(name, {}):
            _read_text(tree, text, name, tables)
    kinds = sorted({kind for found in tables.captions.values() for kind in found}) or [KIND]
    listed = []
    for name in sorted(media | set(tables.captions)):
        captions = complete(tables.captions.get(name, {}), kinds)
        split = tables.splits.get(name) or hashed_split(name, options.val)
        path, why = (tree.path(name), "") if name in media else ("", MISSING)
        notes = tables.notes.get(name, ())
        listed.append(Input(name, split, path, tree.sizes.get(name, 0), captions, why, notes))
    used = media | set(texts.values()) | set(filter(is_table, tree.sizes))
    unread = tree.unread | _count_unread([name for name in tree.sizes if name not in used])
    return limited(listed, options.limit) + [
        Input(name, "train", data=why) for name, why in sorted(unread.items()) if name not in tables.captions
    ]


def clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Everything that becomes of one file."""
    if not source.path:
        yield Rejection(source.item, source.split, source.data)
        return
    yield from file_clips(NAMESPACE, source, options)


def _read_tables(tree: Tree, media: set[str]) -> Tables:
    """What the tables of a tree say of its files; rows that fit none keep the names they give."""
    fitter = Fitter(media, posixpath.basename(tree.root))
    rows = list[tuple[str, Row]]()
    for name in sorted(filter(is_table, tree.sizes)):
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
        rows += [(file or relative_to_table(row), row) for row, file in named if row.path]
    return join_rows(rows)


def _find_texts(tree: Tree, media: set[str]) -> dict[str, str]:
    """The .txt beside each file: of its name exactly, else one that is left over and alone alike."""
    texts = {posixpath.splitext(name)[0]: name for name in tree.sizes if name.lower().endswith(".txt")}
    stems = {name: posixpath.splitext(name)[0] for name in sorted(media)}
    found = {name: text for name, stem in stems.items() if (text := texts.get(stem) or texts.get(name))}
    taken, alike = set(found.values()), collections.defaultdict(list)
    for stem, text in texts.items():
        if text not in taken:
            alike[normal_name(stem)].append(text)
    for name, stem in stems.items():
        if name not in found and len(rest := alike.get(normal_name(stem), [])) == 1:
            found[name] = rest[0]
    return found


def _read_text(tree: Tree, text: str, name: str, tables: Tables) -> None:
    """Adds the caption in a .txt, or a note why there is none, to those of a file."""
    try:
        tables.captions.setdefault(name, {})[KIND] = decode_text(text, tree.read(text, TEXT_BYTES))
    except (ValueError, UserError) as error:
        why = str(error) if text in str(error) else f"{text}: {error}"
        tables.notes[name] = (*tables.notes.get(name, ()), f"caption left out ({why})")


def _count_unread(names: list[str]) -> dict[str, str]:
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
