"""The frame of the report: one self-contained page, its figures with where they come from, and its tables."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from vdit.scaling.reporting import figures, words
from vdit.scaling.reporting.analysis import Analysis

PENDING = '<p class="pending">not run yet</p>'


def data_uri(file: Path, kind: str) -> str:
    """A file as a base64 data URI of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(file.read_bytes()).decode()}"


class Page:
    """One page being written.

    Args:
      found: the study.
      command: the command that writes the page, named under every figure.
    """

    def __init__(self, found: Analysis, command: str):
        self.found = found
        self.command = command

    def html(self, contents: Sequence[tuple[str, str, Callable[[Page], str]]]) -> str:
        """The whole self-contained page, of sections given as (anchor, title, function that writes it)."""
        sections = [f'<section id="{name}"><h2>{title}</h2>{make(self)}</section>' for name, title, make in contents]
        links = "".join(f'<a href="#{name}">{title}</a>' for name, title, _ in contents)
        about = self.found.study.about
        title = escape(str(about.get("title", "Scaling study")))
        boxes = "".join(
            f"<div>{label}<b>{figure}</b>{remark}</div>" for label, figure, remark in words.tiles(self.found)
        )
        head = (
            f'<header><p class="meta">vdit scaling study</p><h1>{title}</h1><p'
            f' class="lede">{words.summary(self.found)}</p></header>'
        )
        body = head + (f'<div class="tiles">{boxes}</div>' if boxes else "") + f"<nav>{links}</nav>" + "".join(sections)
        parts = {
            "title": title,
            "body": (
                body + f"<footer>Written by <code>{escape(self.command)}</code>. Every number on this page is computed"
                " from the files of the study.</footer>"
            ),
            "plotly": get_plotlyjs(),
            "ink": figures.INK,
            "grid": figures.GRID,
        }
        page = resources.files("vdit.scaling.reporting").joinpath("report.html").read_text(encoding="utf-8")
        # Longest last, so that nothing is looked for inside the 5 MB of plotly.
        for name in ("title", "ink", "grid", "body", "plotly"):
            page = page.replace("{{" + name + "}}", parts[name])
        return page

    def plot(self, name: str, caption: str, files: str) -> str:
        """A figure with what it shows, and the command and files that made it."""
        figure = figures.FIGURES[name](self.found)
        if figure is None:
            return f"<figure>{PENDING}<figcaption>{caption}</figcaption></figure>"
        content = figure.to_json().replace("<", "\\u003c")
        return (
            f'<figure><div class="plot" data-figure="figure-{name}"></div>'
            f'<script type="application/json" id="figure-{name}">{content}</script>'
            f"<figcaption>{caption}</figcaption>{self.made(files)}</figure>"
        )

    def made(self, files: str) -> str:
        """The line that says where a figure or table comes from."""
        return f'<p class="made">Made by <code>{escape(self.command)}</code> from <code>{escape(files)}</code></p>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[Any]], *, text: Sequence[int] = (), held: Sequence[int] = ()
) -> str:
    """A table; `text` are columns of words, `held` the rows to mark. Cells are HTML."""

    def row(cells: Sequence[Any], tag: str, mark: bool = False) -> str:
        made = (f"<{tag}{' class=text' if i in text else ''}>{cell}</{tag}>" for i, cell in enumerate(cells))
        return f"<tr{' class=held' if mark else ''}>{''.join(made)}</tr>"

    lines = "".join(row(cells, "td", place in held) for place, cells in enumerate(rows))
    return f'<div class="scroll wide"><table><thead>{row(head, "th")}</thead><tbody>{lines}</tbody></table></div>'
