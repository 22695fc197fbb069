"""Charts as files: their legends and labels, and that the same chart gives the same bytes."""

import re

import numpy as np
import pytest

from vdit.render import charts, panels
from vdit.render.panels import Panel, Series


def texts(svg):
    found = re.findall(r"<text[^>]*>(.*?)</text>", svg.read_text(encoding="utf-8"))
    return [re.sub("<[^>]*>", " ", text).strip() for text in found]


def test_a_figure_is_the_same_whenever_it_is_drawn(tmp_path):
    x = [1e11, 1e12, 1e13]
    panel = Panel("FLOPs", "error", [Series("in", x, [3, 2, 1], [2, 1, 0.5], [4, 3, 2]), Series("out", x, [3, 3, 3])])
    svg, png = charts.save(panels.beside([panel, panel]), tmp_path / "folder" / "figure")
    first = svg.read_bytes(), png.read_bytes()
    charts.save(panels.beside([panel, panel]), tmp_path / "folder" / "figure")
    assert (svg.read_bytes(), png.read_bytes()) == first and png.read_bytes().startswith(b"\x89PNG")
    assert {"1e11", "1e13", "in", "out", "error", "FLOPs"} <= set(texts(svg))


def test_levels_and_named_places_are_labelled(tmp_path):
    series = [Series("loss", range(3), [0.3, 0.2, np.nan], line=False)]
    places = ["packed rows", 'a quoted "name" and it\'s long enough to break', "buckets"]
    panel = Panel("", "loss", series, level=("true clips", 0.1), labels=places)
    svg, _ = charts.save(panels.beside([panel]), tmp_path / "figure")
    found = " ".join(texts(svg)).replace("&quot;", '"')
    assert all(word in found for word in ("packed rows", '"name"', "it's", "buckets", "true clips"))


@pytest.mark.parametrize(("low", "high"), [(0.03, 0.05), (1, 3), (1, 30), (1e11, 1e13), (1e3, 1e9), (5, 5)])
def test_a_logarithmic_axis_has_a_few_labels(low, high):
    ticks = charts.log_ticks(low, high)
    inside = [tick for tick in ticks if low <= tick <= high]
    assert 1 <= len(inside) <= 10 and (high == low or len(inside) >= 2)
    assert ticks == sorted(set(ticks))


def test_ordered_colours_go_from_one_end_to_the_other():
    assert charts.shade(0, 4) == charts.LIGHT.ramp[0] and charts.shade(3, 4) == charts.LIGHT.ramp[-1]
    assert len({charts.shade(i, 9) for i in range(9)}) == 9
    for colours in (charts.LIGHT, charts.DARK):  # lightness falls or rises all the way
        light = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.21, 1), (0.72, 3), (0.07, 5))) for c in colours.ramp]
        assert light in (sorted(light), sorted(light, reverse=True))
