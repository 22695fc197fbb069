"""What benchmarks share: targets beside figures, and pages of docs/ between whose marks figures are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


@dataclasses.dataclass(frozen=True)
class Target:
    """What a figure is to reach: at least, or at most, a bound."""

    bound: float
    most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.bound if self.most else value >= self.bound

    def verdict(self, value: float) -> str:
        """The target, and whether a figure meets it."""
        return f"target at {'most' if self.most else 'least'} {self.bound:g}: {'met' if self.met(value) else 'MISSED'}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = ()) -> str:
    """A table of Markdown; columns of `words`, and the first, stand to the left."""
    from vdit.render.pages import Table, markdown_table  # not by benchmarks that weigh a process

    return markdown_table(Table(head, rows, words))


def judged(figures: Mapping[str, float], targets: Mapping[str, Target], digits: int = 4) -> str:
    """A table of figures, with their targets and whether these are met."""
    rows = [
        (name, _shown(value, digits), targets[name].verdict(value) if name in targets else "")
        for name, value in figures.items()
    ]
    return table(("", "measured", "target"), rows, words=(2,))


def _shown(value: float, digits: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    whole = float(value).is_integer() and abs(value) < 1e9
    return f"{int(value):,}" if whole else f"{value:,.{digits}g}"


def put(name: str, command: str, text: str) -> None:
    """Puts text between the marks of a command in docs/NAME; see `vdit.render.pages.put`."""
    from vdit.render import pages

    pages.put(DOCS / name, command, text)
