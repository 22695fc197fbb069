"""What stands under the figures and tables of a report: the files that they are made from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vdit.render.pages import Chart, code, plain
from vdit.scaling.reporting.analysis import Analysis


def made_from(found: Analysis, files: str) -> str:
    """Where a figure or table comes from: files of the study, or the one table there is."""
    return f"From {code(found.study.about.get('table', files))}"


def chart(name: str, found: Analysis, make: Callable[[Analysis], Any], caption: str, files: str) -> Chart:
    return Chart(name, make(found), caption, made_from(found, files))


def unit(found: Analysis) -> str:
    """What data is counted in, as study.json says."""
    return plain(found.study.about.get("tokens", "tokens"))
