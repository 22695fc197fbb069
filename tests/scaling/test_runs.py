import json

import numpy as np
import pytest

from vdit.errors import UserError
from vdit.scaling.runs import COLUMNS, flatten, gather, read_csv, table, write_csv


def test_columns_of_runs_csv(make_study, tmp_path):
    study = gather(make_study())
    assert len(study.runs) == 16
    write_csv(tmp_path / "runs.csv", [{**run, "zeta": 1, "fvd": 2.5} for run in study.runs])
    header = (tmp_path / "runs.csv").read_text().splitlines()[0].split(",")
    assert header == [*COLUMNS, "fvd", "zeta"]
    back = read_csv(tmp_path / "runs.csv")
    for run, again in zip(study.runs, back, strict=True):
        assert {k: v for k, v in again.items() if k in run} == pytest.approx(run)


def test_results_are_flattened():
    run = flatten(
        {
            "run": "r",
            "loss": 1.5,
            "loss_interval": [1, 2],
            "extra": None,
            "velocity": {"in": {"mean": 3, "interval": [2, 4]}},
        }
    )
    assert run == {
        "run": "r", "loss": 1.5, "loss_low": 1, "loss_high": 2,
        "velocity_in": 3, "velocity_in_low": 2, "velocity_in_high": 4,
    }  # fmt: skip


def test_tokens_are_derived_and_the_convention_is_said():
    runs = [{"flops": 6e6, "params": 10.0, "loss": 1.0}, {"flops": 6e6, "params": 100, "loss": 3.0}]
    derived = table(runs)
    np.testing.assert_allclose(derived.tokens, [1e5, 1e4])
    assert derived.derived_tokens and "by construction" in derived.convention
    assert table([{**run, "tokens": run["flops"] / 6 / run["params"]} for run in runs]).convention == "C = 6 N D"
    assert "counted, 2.00 to 2.00" in table([{**r, "tokens": r["flops"] / 12 / r["params"]} for r in runs]).convention
    assert derived.pick(derived.without_highest(1)).names == ("1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("flops,loss\n1,2\n", "no column params"),
        ("flops,params,loss\n1,2,nan\n", "run 1: loss is missing"),
        ("run,flops,params,loss\nbig,1,-2,1\n", "run big: params is -2"),
        ("flops,params,loss\n1,two,1\n", "params is 'two'"),
        ("flops,params,loss,tokens\n1,2,3,4\n1,2,3,\n", "run 2: tokens is missing"),
    ],
)
def test_bad_csv_is_named(tmp_path, text, message):
    (tmp_path / "r.csv").write_text(text)
    with pytest.raises(UserError, match=message):
        table(read_csv(tmp_path / "r.csv"), "r.csv")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="none.csv"):
        read_csv(tmp_path / "none.csv")
    with pytest.raises(UserError, match="not a directory"):
        gather(tmp_path / "none")


def test_gather_survives_damage(make_study):
    root = make_study()
    (root / "study.json").write_text('{"title"')
    (root / "floor.json").write_text("[1]")
    next(root.glob("runs/c*/result.json")).write_text("{")
    study = gather(root)
    assert len(study.runs) == 15 and study.about == {} and study.floor == {}
    assert len(study.unreadable) == 3 and len(study.curves["trunk"]) == 400


def test_nominal_budgets_are_given_to_grid_runs_near_them(make_study):
    root = make_study(budgets=(1e12,), held_out=True)
    study = gather(root)
    assert {run.get("budget") for run in study.runs if run["kind"] == "grid"} == {1e12}
    assert all("budget" not in run for run in study.runs if run["kind"] == "heldout")
    unfit = json.loads((next(root.glob("runs/c*/result.json"))).read_text()) | {"loss": float("nan")}
    next(root.glob("runs/c*/result.json")).write_text(json.dumps(unfit))
    assert len(gather(root).of_kind("grid")) == 4
