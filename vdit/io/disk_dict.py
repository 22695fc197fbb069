"""A dictionary that lies on the disk: for as many entries as there are files, in memory of constant size."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, MutableMapping
from typing import TypeVar

Value = TypeVar("Value")

CACHE_KIB = 4096
"""Of its pages that are kept in memory."""


def temporary_database() -> sqlite3.Connection:
    """A database in a file of the system's temporary folder, which is gone with its connection, however that ends."""
    connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA temp_store=FILE")
    connection.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    connection.execute("PRAGMA journal_mode=OFF")
    connection.execute("PRAGMA synchronous=OFF")
    connection.execute("BEGIN")
    return connection


class DiskDict(MutableMapping[str, Value]):
    """Values that JSON knows, by text, in the order of their keys. What is read is a copy: set it to change it."""

    def __init__(self) -> None:
        self._database = temporary_database()
        self._database.execute("CREATE TABLE entries (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID")
        self._used = False  # so that looking into an empty one costs nothing

    def __getitem__(self, key: str) -> Value:
        query = "SELECT value FROM entries WHERE key = ?"
        row = self._database.execute(query, (key,)).fetchone() if self._used else None
        if row is None:
            raise KeyError(key)
        value: Value = json.loads(row[0])
        return value

    def __setitem__(self, key: str, value: Value) -> None:
        self._used = True
        self._database.execute("INSERT OR REPLACE INTO entries VALUES (?, ?)", (key, json.dumps(value)))

    def __delitem__(self, key: str) -> None:
        if not self._database.execute("DELETE FROM entries WHERE key = ?", (key,)).rowcount:
            raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return (key for (key,) in self._database.execute("SELECT key FROM entries ORDER BY key"))

    def entries(self) -> Iterator[tuple[str, Value]]:
        """All keys with their values, as `items`, read one after another."""
        for key, value in self._database.execute("SELECT key, value FROM entries ORDER BY key"):
            yield key, json.loads(value)

    def __len__(self) -> int:
        count: int = self._database.execute("SELECT count(*) FROM entries").fetchone()[0]
        return count
