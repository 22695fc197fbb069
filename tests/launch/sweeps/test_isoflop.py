"""Iso-FLOP grids: their runs, what they cost before anything starts, and trunks that come before their branches."""

import json

import numpy as np
import pytest
import sweeping
import tiny

from launch.sweeps import cost
from launch.sweeps.expand import Sweep, expand
from launch.sweeps.grid import Points, size
from launch.sweeps.isoflop import isoflop
from launch.sweeps.state import Folder, State
from launch.targets import local
from vdit.errors import UserError
from vdit.scaling.laws.law import Law
from vdit.scaling.runs import write_csv

SIZES = tuple(size(width, head_width=4) for width in (4, 8, 12, 16))
BUDGETS = (2e9, 4e9, 8e9)


@pytest.fixture
def experiment(tmp_path):
    return str(tiny.write_config(tmp_path / "experiment.py", tiny.tiny_config(checkpoint_every=1000)))


def planned(experiment, points, speeds=()):
    return cost.costs(expand(experiment, points), speeds)


def test_branches_spend_their_budgets_and_leave_trunks_where_these_keep_a_checkpoint(experiment):
    plan = planned(experiment, isoflop(experiment, BUDGETS, SIZES))
    assert [each.kind for each in plan] == ["trunk", "branch", "branch", "branch"] * len(SIZES)
    trunks = {each.run.id: each.run.config.train for each in plan if each.kind == "trunk"}
    for each in plan:
        if each.kind == "branch":
            train, cooldown = each.run.config.train, each.run.config.optimizer.cooldown
            assert train.steps - cooldown in trunks[each.run.trunk].keep_steps
            assert cooldown == pytest.approx(0.2 * train.steps, abs=1)
            assert min(abs(each.flops / budget - 1) for budget in BUDGETS) < 0.03
    spent, separate = sum(each.spent for each in plan), sum(each.flops for each in plan if each.kind == "branch")
    assert 0.5 < spent / separate < 0.75  # budgets 1, 2, 4: (0.8 x 4 + 0.2 x 7) of 7
    apart = planned(experiment, isoflop(experiment, BUDGETS, SIZES, trunks=False, seeds=(0, 1)))
    assert [each.kind for each in apart] == ["run"] * 24
    assert sum(each.flops for each in apart) == pytest.approx(2 * separate, rel=0.01)


def test_the_plan_counts_epochs_hours_and_cost(experiment):
    points = isoflop(experiment, BUDGETS, SIZES, fractions=(0.5, 1.0), trunks=False)
    plan = planned(experiment, points, [(1e2, 1e9), (1e9, 4e9)])
    half, whole = (each for each in plan if each.run.config.model.width == 8 and each.flops < 3e9)
    assert half.epochs == pytest.approx(2 * whole.epochs, rel=0.2)
    assert whole.hours == pytest.approx(whole.spent / 1e9 / 3600)
    text = cost.text(plan, price_per_hour=2.0, at_once=4)
    total = sum(each.hours for each in plan)
    assert f"cost {2 * total:.3g}" in text and "h of waiting" in text and text.count("\n") == 24 + 1
    assert "hours are not known" in cost.text(planned(experiment, points), 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"budgets": (2e9, 4e9)}, "2 budgets"),
        ({"budgets": (2e9, 3e9, 4e9)}, "factor 2"),
        ({"sizes": SIZES[:3]}, "3 sizes"),
        ({"sizes": tuple(size(w, head_width=4) for w in (8, 12))+ SIZES[1:3]}, "sizes"),
        ({"sizes": tuple(size(w, head_width=1) for w in (13, 14, 15, 16))}, "span a factor"),
        ({"budgets": (2e7, 4e9, 8e9)}, "buy . steps"),
        ({"rule": lambda budget, fields: {}}, "needs trunks=False"),
    ],
)  # fmt: skip
def test_grids_without_minima_are_refused(experiment, changes, message):
    with pytest.raises(UserError, match=message):
        isoflop(experiment, **{"budgets": BUDGETS, "sizes": SIZES, **changes})


@pytest.mark.parametrize(("best_over_planned", "outside"), [(1, 0), (1e4, 3)])
def test_a_known_law_refuses_budgets_whose_best_size_is_outside(experiment, tmp_path, best_over_planned, outside):
    plan = planned(experiment, isoflop(experiment, BUDGETS, SIZES, trunks=False))
    best = best_over_planned * sorted({each.params for each in plan})[1]
    law = Law(A=best**0.5, B=(BUDGETS[1] / 6 / best) ** 0.5, E=0.1, alpha=0.5, beta=0.5)  # at the middle budget
    assert law.optimal_params(BUDGETS[1]) == pytest.approx(best)
    runs = [
        {"flops": c, "params": n, "tokens": c / (6 * n), "loss": float(law.loss(n, c / (6 * n)))}
        for c in BUDGETS
        for n in np.geomspace(best / 4, best * 4, 5)
    ]
    write_csv(tmp_path / "runs.csv", runs)
    found = cost.check_minima(plan, tmp_path / "runs.csv")
    assert len(found) == outside and all("add sizes" in line for line in found)


def test_branches_wait_for_their_trunk_and_fail_with_it(experiment, tmp_path):
    points = isoflop(experiment, BUDGETS, SIZES)
    runs = expand(experiment, Points(list(points)[:4]))
    sweep = Sweep("grid", experiment, runs[::-1], {"local": local.Local(at_once=4, backoff=0.02, restarts=0)})
    with sweeping.stand_in(tmp_path):
        folder, failed = sweeping.launch(sweep, tmp_path / "good")
    assert failed == 0
    trunk = (folder.run(runs[0].id) / "result.json").stat().st_mtime
    assert all(folder.state(run.id).attempts[0]["start"] >= trunk - 0.05 for run in runs[1:])
    bad = Folder(tmp_path / "bad" / "grid")
    bad.run(runs[0].id).mkdir(parents=True)
    (bad.run(runs[0].id) / "script").write_text(json.dumps([{"status": 2}]))
    with sweeping.stand_in(tmp_path):
        folder, failed = sweeping.launch(sweep, tmp_path / "bad")
    assert failed == 4 and "its trunk" in folder.state(runs[1].id).reason
    assert folder.without_trunk(runs) == [runs[0]] and folder.trunk_failed(runs[1])
    folder.write_state(runs[0].id, State())
    assert not folder.trunk_failed(runs[1])
    folder.write_state(runs[0].id, State("stopped"))  # by Ctrl-C; with the script gone the trunk can finish
    (bad.run(runs[0].id) / "script").unlink()
    with sweeping.stand_in(tmp_path):
        assert sweeping.launch(sweep, tmp_path / "bad")[1] == 0
    assert all(bad.finished(run) for run in runs)
