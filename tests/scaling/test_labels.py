"""No text of a figure lies on another, on narrow pages and on wide ones."""

from pathlib import Path

import altair as alt
import pytest
from chart_labels import boxes, overlaps

from launch.experiments import spec
from launch.experiments.pages import drawing
from vdit.render import pages, panels
from vdit.scaling.reporting import sections
from vdit.scaling.reporting.analysis import analyse
from vdit.scaling.runs import gather, read_csv

TABLES = {path.stem: path for path in Path("docs/experiments").glob("*.csv")}


def charts_of(found):
    return [each for each in pages.charts_of(sections.page(found, "")) if each.chart]


def test_figures_of_a_report(make_study):
    drawn = charts_of(analyse(gather(make_study()), 5))
    assert len(drawn) > 8 and all(len(boxes(each.chart)) > 8 for each in drawn[:2])
    for each in drawn:
        assert not overlaps(each.chart, 260) and not overlaps(each.chart, 1100), each.name


@pytest.mark.parametrize("name", sorted(TABLES))
def test_figures_of_an_experiment(name):
    experiment, rows = spec.load(name), read_csv(TABLES[name])
    drawn = [made for each in experiment.figures if (made := drawing.panel(each, rows, {}))]
    assert drawn and not overlaps(panels.beside(drawn))


def test_what_overlaps_is_found():
    title = alt.Axis(titleAngle=0, titleX=-20, titleY=100, values=[1, 2])
    chart = (
        alt.Chart(alt.Data(values=[{"y": 1}, {"y": 2}])).mark_point().encode(alt.Y("y:Q", title="on it", axis=title))
    )
    assert overlaps(chart.properties(width=200, height=200)) == [("1", "on it")]
