"""Pages: what is code, emphasis and raised in HTML, what is escaped, and the same blocks as Markdown."""

import pytest

from vdit.render.pages import (
    Chart,
    Download,
    Page,
    Pending,
    Picture,
    Points,
    Section,
    Table,
    Text,
    code,
    html,
    markdown,
    plain,
)

BLOCKS = [
    Text("`a_b` grows as *C*^{0.5}, **at least** & <b>"),
    Table(["name", "value"], [["x | y", "1"], ["z", "2"]], marked=[1]),
    Points(["one", "two"]),
    Picture("figures/a.svg", "A picture", "What it shows."),
    Pending(),
]
PAGE = Page("A & <page>", ["First."], [Section("part", "A part", BLOCKS)], tiles=[("loss", "*C*^{2}", "<i>")])


def test_statements_of_the_opening_are_a_list():
    page = Page("A page", ["First."], [], points=["**One.** 1", "<b>"])
    assert '<ul class="lede"><li><strong>One.</strong> 1</li><li>&lt;b&gt;</li></ul>' in html(page)
    assert markdown(page) == "# A page\n\nFirst.\n\n* **One.** 1\n* <b>\n"


def test_html_escapes_all_but_its_marks():
    made = html(PAGE)
    assert "<code>a_b</code> grows as <em>C</em><sup>0.5</sup>, <strong>at least</strong> &amp; &lt;b&gt;" in made
    assert (
        "<title>A &amp; &lt;page&gt;</title>" in made
        and "&lt;i&gt;" in made
        and "<b><em>C</em><sup>2</sup></b>" in made
    )
    assert '<tr class="held"><td>z</td>' in made and '<p class="pending">not run yet</p>' in made
    assert "vegaEmbed" not in made  # without charts there is no script for them


def test_markdown_has_the_same_parts():
    assert markdown(Page("A page", ["First.", "Second."], [Section("part", "A part", BLOCKS)])) == (
        "# A page\n\nFirst.\n\nSecond.\n\n## A part\n\n`a_b` grows as *C*^{0.5}, **at least** & <b>\n\n"
        "| name | value |\n| --- | --: |\n| x \\| y | 1 |\n| z | 2 |\n\n* one\n* two\n\n"
        "![A picture](figures/a.svg)\n\n*What it shows.*\n\n*not run yet*\n"
    )


@pytest.mark.parametrize("name", ["**x**", "`x`", "a*b*c", "\\", "<script>", "{{ page }}", "![x](http://x)", "^{2}"])
def test_names_from_elsewhere_are_shown_as_they_are(name):
    from html import unescape

    made = html(Page("", [f"run {plain(name)} end"], [Section("s", "S", [Text(f"run {code(name)} end")])]))
    lead = made.split('<p class="lede">')[1].split("</p>")[0]
    assert unescape(lead.replace("<sup>2</sup>", "^{2}")) == f"run {name} end"
    quoted = made.split("<code>")[1].split("</code>")[0]
    assert unescape(quoted) == name.replace("`", "'").strip() and "<img" not in made


def test_a_chart_that_is_missing_says_so_and_a_file_is_held():
    made = html(Page("", [], [Section("s", "S", [Chart("x", None, "Caption."), Download("a.csv", "a,b", "All:")])]))
    assert "not run yet" in made and "Caption." in made and 'href="data:text/csv;base64,YSxi"' in made
