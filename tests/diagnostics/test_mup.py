import numpy as np
import pytest

from vdit.diagnostics.mup import best_rates, rate_figure
from vdit.errors import UserError


def runs(optimum):
    rng = np.random.default_rng(0)
    return [
        {
            "width": w,
            "learning_rate": r,
            "loss": 0.1 * 16 / w + 0.02 * np.log(r / optimum(w)) ** 2 + rng.normal(0, 1e-5),
        }
        for w in (16, 32, 64, 128)
        for r in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
        for _ in range(2)
    ]


def test_the_best_rate_of_each_width_is_found_and_drawn(tmp_path):
    found = rate_figure(runs(lambda w: 5e-3), str(tmp_path / "rate"))
    assert found["factor"] == pytest.approx(1, abs=0.05) and found["best_rates"][128] == pytest.approx(5e-3, rel=0.05)
    assert (tmp_path / "rate.svg").read_text().count("<path") > 8
    assert (tmp_path / "rate.png").read_bytes().startswith(b"\x89PNG")
    first = (tmp_path / "rate.svg").read_bytes()
    rate_figure(runs(lambda w: 5e-3), str(tmp_path / "rate"))
    assert (tmp_path / "rate.svg").read_bytes() == first
    assert rate_figure(runs(lambda w: 8e-3 / (w / 16) ** 0.5), str(tmp_path / "r"))["factor"] > 2


def test_a_best_rate_at_the_edge_is_refused():
    with pytest.raises(UserError, match="width 16 is best at the highest rate"):
        best_rates(runs(lambda w: 1.0))
    with pytest.raises(UserError, match="has 2 learning rates"):
        best_rates([run for run in runs(lambda w: 5e-3) if run["learning_rate"] < 3e-3])


def test_depths_have_a_panel_of_their_own(tmp_path):
    deep = [
        {"width": 32, "depth": depth, "learning_rate": rate, "loss": 0.1 + 0.02 * np.log(rate * depth**0.5 / 1e-2) ** 2}
        for depth in (2, 4, 8)
        for rate in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)
    ]
    wide = [{**run, "depth": 2} for run in runs(lambda w: 5e-3) if run["width"] != 32]
    found = rate_figure(deep + wide, str(tmp_path / "rate"))
    assert found["best_rates"].keys() == {16, 32, 64, 128}
    assert found["depth"]["best_rates"].keys() == {2, 4, 8}
    assert found["depth"]["factor"] == pytest.approx(2, rel=0.05)
    drawn = (tmp_path / "rate.svg").read_text()
    assert all(label in drawn for label in ("width 128, best", "depth 8, best"))
