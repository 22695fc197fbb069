"""Captions of the files of a tree: a .txt beside the file, or a table (captions.csv, *.jsonl) anywhere in the tree."""

from __future__ import annotations

import codecs
import csv
import dataclasses
import io
import json
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vdit.errors import UserError
from vdit.io.disk_dict import DiskDict
from vdit.io.names import printable

TABLES = ("captions.csv", "metadata.csv")
FILE_COLUMNS = ("file", "file_name", "filename", "path", "video", "image")
SPLIT_COLUMN = "split"
KIND = "caption"
"""Caption kind of a .txt, and of the columns `caption` and `text`; column caption_short is kind `short`."""

TEXT_BYTES, TABLE_BYTES = 1 << 20, 1 << 30
"""Longer files are no captions, and no tables of them."""

_JSON_TYPES = {list: "a list", dict: "an object", bool: "a truth value", int: "a number", float: "a number"}


@dataclasses.dataclass(frozen=True)
class Row:
    """What a row of a table says of a file.

    Attributes:
      table: its name.
      line: its number.
      path: the file as it is written there; empty = none.
      captions: text by kind; kinds without text are left out.
      split: empty = none.
      notes: what is wrong with its captions.
    """

    table: str
    line: int
    path: str
    captions: dict[str, str]
    split: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Tables:
    """What all tables of a tree say, by the name of the file, on the disk.

    Attributes:
      captions: by kind.
      splits: that the tables name.
      notes: for the ledger.
      kinds: of any caption.
    """

    captions: DiskDict[dict[str, str]] = dataclasses.field(default_factory=DiskDict)
    splits: DiskDict[str] = dataclasses.field(default_factory=DiskDict)
    notes: DiskDict[list[str]] = dataclasses.field(default_factory=DiskDict)
    kinds: set[str] = dataclasses.field(default_factory=set)

    def add(self, name: str, captions: Mapping[str, str]) -> None:
        """Takes down more captions of a file."""
        self.captions[name] = {**self.captions.get(name, {}), **captions}
        self.kinds.update(captions)

    def note(self, name: str, *notes: str) -> None:
        """Takes down what is wrong with the captions of a file."""
        self.notes[name] = [*self.notes.get(name, []), *notes]


def is_table(name: str) -> bool:
    """Whether a file of the tree gives captions of others."""
    base = posixpath.basename(name).lower()
    return base in TABLES or base.endswith(".jsonl")


def relative_to_table(row: Row) -> str:
    """The file of a row, as a name below the root of the tree."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(row.table), row.path))


def join_rows(rows: Iterable[tuple[str, Row]]) -> Tables:
    """Brings together what the rows of all tables say of each file, whose name stands before the row.

    Raises:
      UserError: if two rows say different things of one file.
    """
    tables = Tables()
    for name, row in rows:
        found = tables.captions.get(name, {})
        if any(found.get(kind, text) != text for kind, text in row.captions.items()):
            raise UserError(f"{row.table} row {row.line} contradicts an earlier row about {name}")
        tables.add(name, row.captions)
        if row.split:
            tables.splits[name] = row.split
        if row.notes:
            tables.note(name, *row.notes)
    return tables


def read_table(name: str, data: bytes) -> list[Row]:
    """The rows of a table.

    Args:
      name: path of the table below the root of the tree, "/" between folders.
      data: its bytes.

    Raises:
      UserError: if it cannot be understood.
    """
    return [_row(name, line, values) for line, values in _cells(name, data)]


def _row(name: str, line: int, values: dict[str, Any]) -> Row:
    columns = [column for column in FILE_COLUMNS if column in values]
    if not columns:
        raise UserError(f"{name} row {line} names no file; give it one of the columns {', '.join(FILE_COLUMNS)}")
    kinds = {column: kind for column in values if (kind := caption_kind(column))}
    if not kinds and not values.get(SPLIT_COLUMN):
        raise UserError(f"{name} row {line} has no caption; give it a column caption, text or caption_KIND")
    captions, notes = dict[str, str](), list[str]()
    for column, kind in kinds.items():
        value = values[column]
        if value is not None and not isinstance(value, str):
            notes.append(f"its {column} is {_JSON_TYPES[type(value)]}, not text")
        elif value and printable(value) != value:
            notes.append(f"its {column} has half a character (a lone surrogate)")
        elif value and value.strip():
            captions[kind] = value.strip()
    split = values.get(SPLIT_COLUMN) or ""
    if split and not (isinstance(split, str) and re.fullmatch("[a-z][a-z0-9_]*", split)):
        raise UserError(f"{name} row {line}: split {split!r} is not a name like train or val")
    path = next((values[column] for column in columns if isinstance(values[column], str) and values[column]), "")
    return Row(name, line, printable(path.strip()), captions, split, tuple(notes))


def decode_text(name: str, data: bytes) -> str:
    """A caption file's text on one line.

    Raises:
      UserError: if it is not UTF-8.
    """
    try:
        return " ".join(_decode(data).split())
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error


def _decode(data: bytes) -> str:
    """Text in UTF-8, or in UTF-16 if it begins with a mark of that."""
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


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


def _cells(name: str, data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, values by column) of each row."""
    try:
        text = _decode(data)
        if name.lower().endswith(".csv"):
            for line, cells in enumerate(csv.DictReader(io.StringIO(text, newline=""), strict=True), start=2):
                if None in cells:
                    raise ValueError(f"row {line} has more cells than the header")
                yield line, {key.strip(): value or "" for key, value in cells.items()}
            return
        for line, written in enumerate(text.split("\n"), start=1):  # other line ends may stand inside of strings
            if written.strip():
                row = json.loads(written)
                if not isinstance(row, dict):
                    raise ValueError(f"row {line} is no object")
                yield line, row
    except (UnicodeDecodeError, csv.Error, ValueError, RecursionError) as error:
        raise UserError(f"{name} is not a table of captions ({' '.join(str(error).split())[:160]})") from error
