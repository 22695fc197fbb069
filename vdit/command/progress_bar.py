"""How far a command is: a bar on a terminal, elsewhere a line on stderr now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Any, TextIO

from tqdm import tqdm

from vdit.io.formatting import duration

LINE_SECONDS = 10.0
"""Seconds between two lines where there is no terminal."""

COMPILING = "compiling (usually a minute)"
"""What stands beside the count until the first unit of work that has to be compiled for is done."""

FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}"
FORMAT_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}s{postfix}"


class ProgressBar(contextlib.AbstractContextManager["ProgressBar"]):
    """Counts units of work. The first one, which may wait for compilation, is left out of the time left.

    Args:
      name: what is done.
      unit: of what it is done, in the singular.
      total: units in all; None = not known.
      done: units done before.
      note: what is shown beside the count at first, such as `COMPILING`.
      lines: print lines where there is no terminal; False leaves that to the caller.
    """

    def __init__(
        self, name: str, unit: str, total: int | None = None, done: int = 0, note: str = "", lines: bool = True
    ) -> None:
        self._name, self._unit, self._lines = name, unit, lines
        self._first: tuple[float, int] | None = None
        self._last_line = time.monotonic()
        layout = FORMAT_WITHOUT_TOTAL if total is None else FORMAT
        off = not sys.stderr.isatty()
        self._bar: tqdm[Any] = tqdm(
            desc=name, unit=unit, total=total, initial=done, disable=off, bar_format=layout, dynamic_ncols=True
        )
        self._done, self._total = done, total
        self.show(note)
        if note and lines and self.is_off:
            self._print(note)

    @property
    def is_off(self) -> bool:
        """Whether there is no terminal to show a bar on."""
        return bool(self._bar.disable)

    def show(self, note: str) -> None:
        """Shows a note beside the count."""
        self._bar.set_postfix_str(note)

    def advance(self, units: int = 1, note: str = "") -> None:
        """So many more units are done."""
        self.move_to(self._done + units, note=note)

    def move_to(self, done: int, total: int | None = None, note: str = "") -> None:
        """So many units of `total` are done; fewer than before begin a new count."""
        now = time.monotonic()
        if done < self._done or self._first is None:
            self._first = now, done
        units, self._done = done - self._done, done
        if total is not None and total != self._total:
            self._bar.total = self._total = total
            self._bar.bar_format = FORMAT
        left = self.seconds_left
        said = ", ".join(filter(None, [note, "" if left is None else f"{duration(left)} left"]))
        self._bar.set_postfix_str(said, refresh=False)
        self._bar.update(units)
        if self._lines and self.is_off and now - self._last_line >= LINE_SECONDS:
            self._print(said)

    @property
    def seconds_left(self) -> float | None:
        """By the time that the units after the first took; None as long as that is not known."""
        if self._total is None or self._first is None:
            return None
        began, first = self._first
        if self._done <= first:
            return 0.0 if self._done >= self._total else None
        return (self._total - self._done) * (time.monotonic() - began) / (self._done - first)

    def write(self, line: str, file: TextIO | None = None) -> None:
        """Prints a line above the bar."""
        self._bar.write(line, file=file or sys.stdout)
        if self.is_off:
            (file or sys.stdout).flush()

    def close(self) -> None:
        self._bar.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _print(self, said: str) -> None:
        self._last_line = time.monotonic()
        count = f"{self._done}" if self._total is None else f"{self._done}/{self._total}"
        line = ", ".join(filter(None, [f"{self._name}: {count} {self._unit}s", said]))
        print(line, file=sys.stderr, flush=True)
