"""Figures that a benchmark writes into a page of docs/, between marks that name its command."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
END = "<!-- end -->"


def put(name: str, command: str, text: str) -> None:
    """Puts text between `<!-- begin: COMMAND -->` and the next `<!-- end -->` of docs/NAME.

    Raises:
      ValueError: if the page does not have these marks.
    """
    page, begin = DOCS / name, f"<!-- begin: {command} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")
