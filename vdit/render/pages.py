"""The renderer of pages: sections of text, tables, charts and pictures as one self-contained HTML file, or as Markdown.

Texts are in the little of Markdown that both need: `code`, **strong**, *emphasis*, and x^{2} for what is raised.
Whatever else stands in them is shown as it is; HTML is escaped by the templates.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import jinja2
from markdown_it import MarkdownIt
from markupsafe import Markup

from vdit.render import charts

_MARKDOWN = MarkdownIt("zero").enable(["backticks", "emphasis", "escape"])
_RAISED = re.compile(r"<code>.*?</code>|\^\{([^{}<>]*)\}")


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; small ones say where something comes from."""

    text: str
    small: bool = False
    kind: ClassVar[str] = "text"


@dataclasses.dataclass(frozen=True)
class Pending:
    """What is not there yet, and why."""

    text: str = "not run yet"
    kind: ClassVar[str] = "pending"


@dataclasses.dataclass(frozen=True)
class Points:
    """A list."""

    items: Sequence[str]
    kind: ClassVar[str] = "points"


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      head, rows: texts.
      words: columns of words, which stand to the left; the first always does.
      marked: numbers of rows to set off.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: Sequence[int] = ()
    marked: Sequence[int] = ()
    kind: ClassVar[str] = "table"


@dataclasses.dataclass(frozen=True)
class Chart:
    """An interactive chart; Markdown has its Picture instead. None = not run yet."""

    name: str
    chart: Any
    caption: str
    made: str = ""
    kind: ClassVar[str] = "chart"

    @property
    def spec(self) -> dict[str, Any]:
        return charts.spec(self.chart)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture by its address: a path beside a Markdown page, or a data URI in a page that stands alone."""

    source: str
    title: str
    caption: str = ""
    kind: ClassVar[str] = "picture"


@dataclasses.dataclass(frozen=True)
class Row:
    """Charts or pictures beside each other where there is room."""

    blocks: Sequence[Chart | Picture]
    kind: ClassVar[str] = "row"


@dataclasses.dataclass(frozen=True)
class Sample:
    """A video or picture as a data URI; an empty one is not there."""

    video: str = ""
    picture: str = ""
    title: str = ""


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Samples in a grid.

    Attributes:
      heads: (name, remark) of each column.
      rows: (prompt, remark, samples) of each row; None leaves a place empty.
      smooth: whether pixels may be blurred when they are enlarged.
    """

    heads: Sequence[tuple[str, str]]
    rows: Sequence[tuple[str, str, Sequence[Sample | None]]]
    smooth: bool = False
    kind: ClassVar[str] = "gallery"


@dataclasses.dataclass(frozen=True)
class Download:
    """A file that the page holds."""

    name: str
    content: str
    text: str
    kind: ClassVar[str] = "download"

    @property
    def address(self) -> str:
        return data_uri(self.content.encode(), "text/csv")


Block = Text | Pending | Points | Table | Chart | Picture | Row | Gallery | Download


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page."""

    anchor: str
    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
      title: of it.
      lead: paragraphs before the first section.
      sections: in order.
      kicker: what kind of page it is.
      tiles: (label, figure, remark) of headline figures.
      footer: what made it.
      points: statements that follow the lead, as a list.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    kicker: str = ""
    tiles: Sequence[tuple[str, str, str]] = ()
    footer: str = ""
    points: Sequence[str] = ()


def code(name: Any) -> str:
    """A name as code in a text, whatever characters it has."""
    return "`" + str(name).replace("`", "'") + "`"


def plain(text: Any) -> str:
    """Words from elsewhere in a text: what would be read as code or emphasis is shown as it is."""
    return re.sub(r"([`*_\\])", r"\\\1", str(text))


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as a base64 data URI of a MIME type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def charts_of(page: Page) -> list[Chart]:
    """All charts of a page, in order."""
    blocks = [block for section in page.sections for block in section.blocks]
    inner = [part for block in blocks for part in (block.blocks if isinstance(block, Row) else [block])]
    return [block for block in inner if isinstance(block, Chart)]


def html(page: Page) -> str:
    """The page as one HTML file that fetches nothing."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            page=page,
            scripts=Markup(charts.scripts()) if any(each.chart for each in charts_of(page)) else "",
            themes={"light": charts.theme(), "dark": charts.theme(dark=True)},
        )
    )


def markdown(page: Page) -> str:
    """The page as Markdown."""
    return _environment().get_template("page.md").render(page=page).strip() + "\n"


def markdown_table(table: Table) -> str:
    """A table alone, as Markdown."""
    return str(_environment().get_template("table.md").module.table(table)).strip()  # type: ignore[attr-defined]


END = "<!-- end -->"


def put(page: Path, command: str, text: str) -> None:
    """Puts text between `<!-- begin: COMMAND -->` and the next `<!-- end -->` of a page of Markdown.

    Raises:
      ValueError: if the page does not have these marks.
    """
    begin = f"<!-- begin: {command} -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    _, after = rest.split(END, 1)
    page.write_text(f"{before}{begin}\n{text}\n{END}{after}", encoding="utf-8")


def _inline(text: Any) -> Markup:
    """Text with its marks as HTML; everything else in it is escaped."""
    made = _MARKDOWN.renderInline(str(text))
    return Markup(_RAISED.sub(lambda found: found[0] if found[1] is None else f"<sup>{found[1]}</sup>", made))


def _cell(text: Any) -> str:
    """Text in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vdit.render"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {"inline": _inline, "cell": _cell}
    return made
