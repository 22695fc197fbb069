"""Captions of the files of a tree: a .txt beside the file, or a table (captions.csv, *.jsonl) anywhere in the tree."""

from __future__ import annotations

import csv
import io
import json
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping

from vdit.errors import UserError

TABLES = ("captions.csv", "metadata.csv")
FILE_COLUMNS = ("file", "file_name", "filename", "path", "video", "image")
SPLIT_COLUMN = "split"
KIND = "caption"
"""Caption kind of a .txt, and of the columns `caption` and `text`; column caption_short is kind `short`."""

Table = dict[str, dict[str, str]]
Reader = Callable[[str], bytes]


def is_table(name: str) -> bool:
    """Whether a file of the tree says captions of others."""
    base = posixpath.basename(name).lower()
    return base in TABLES or base.endswith(".jsonl")


def read_tables(names: Iterable[str], read: Reader) -> tuple[Table, dict[str, str]]:
    """Reads all tables of a tree.

    Args:
      names: paths of the tables below its root, "/" between folders.
      read: gives the bytes of one.

    Returns:
      Captions by kind, and splits, by the path of the file they belong to; paths in a table are relative to it.

    Raises:
      UserError: if a table cannot be understood, or two say different things of one file.
    """
    captions: Table = {}
    splits: dict[str, str] = {}
    for name in sorted(names):
        for line, row in _rows(name, read(name)):
            column = next((column for column in FILE_COLUMNS if row.get(column)), None)
            if column is None:
                raise UserError(
                    f"{name} row {line} names no file; give it one of the columns {', '.join(FILE_COLUMNS)}"
                )
            path = posixpath.normpath(posixpath.join(posixpath.dirname(name), row[column]))
            found = {kind: row[key].strip() for key in row if (kind := caption_kind(key)) and row[key]}
            if not found and not row.get(SPLIT_COLUMN):
                raise UserError(f"{name} row {line} has no caption; give it a column caption, text or caption_KIND")
            if any(captions.get(path, {}).get(kind, text) != text for kind, text in found.items()):
                raise UserError(f"{name} row {line} says something else of {path} than an earlier row")
            captions.setdefault(path, {}).update(found)
            if row.get(SPLIT_COLUMN):
                if not re.fullmatch("[a-z][a-z0-9_]*", row[SPLIT_COLUMN]):
                    raise UserError(f"{name} row {line}: split {row[SPLIT_COLUMN]!r} is no name like train or val")
                splits[path] = row[SPLIT_COLUMN]
    return captions, splits


def decode_text(name: str, data: bytes) -> str:
    """A caption file's text on one line.

    Raises:
      UserError: if it is not UTF-8.
    """
    try:
        return " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def complete(captions: Mapping[str, str], kinds: Iterable[str]) -> dict[str, str]:
    """Captions of every kind: a kind that is missing takes the text of another, or none."""
    spare = next(iter(captions.values()), "")
    return {kind: captions.get(kind) or spare for kind in kinds}


def caption_kind(column: str) -> str:
    """Kind of caption that a column holds; empty if it holds none."""
    if column in ("caption", "text"):
        return KIND
    for prefix in ("caption_", "text_"):
        if column.startswith(prefix) and column[len(prefix) :].isidentifier():
            return column[len(prefix) :]
    return ""


def _rows(name: str, data: bytes) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = data.decode("utf-8-sig")
        if name.lower().endswith(".csv"):
            for line, row in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), start=2):
                if None in row:
                    raise ValueError(f"row {line} has more cells than the header")
                yield line, {key.strip(): value or "" for key, value in row.items()}
            return
        for line, written in enumerate(text.splitlines(), start=1):
            if written.strip():
                row = json.loads(written)
                if not isinstance(row, dict):
                    raise ValueError(f"row {line} is no object")
                yield line, {key: value for key, value in row.items() if isinstance(value, str)}
    except (UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a table of captions ({' '.join(str(error).split())[:160]})") from error
