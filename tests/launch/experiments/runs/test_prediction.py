"""The prediction of a held-out run: its size, and that it is written before, once."""

import dataclasses
import json

import pytest
from small_experiment import a_grid, as_text, runner_of, small

from launch.experiments.pages import notes
from launch.experiments.runs import prediction
from launch.experiments.spec import Arm
from launch.sweeps import budget
from vdit.errors import UserError


def test_the_prediction_is_written_before_and_never_again(out, tmp_path):
    law, grid = a_grid()
    runner = runner_of(small(arms=[Arm("big", {}, 3e9, kind="heldout")], compare=[]), out)
    (planned, *_) = runner.trials.plan()
    path = tmp_path / "x-prediction.json"
    with pytest.raises(UserError, match="begun before .* was written"):
        prediction.write_prediction(path, grid, planned, begun=True)
    assert prediction.write_prediction(path, grid, planned, begun=False)
    said = json.loads(path.read_text())
    assert said["tokens"] > 0 and said["predicted_loss"] == pytest.approx(
        float(law.loss(said["params"], said["tokens"])), rel=0.05
    )
    assert not prediction.write_prediction(path, grid, planned, begun=True)
    with pytest.raises(UserError, match="written for rows=9, but the held-out run has 8"):
        prediction.write_prediction(path, grid[:-1], planned, begun=False)
    larger = dataclasses.replace(planned, arm=dataclasses.replace(planned.arm, budget=6e9))
    with pytest.raises(UserError, match="written for flops=3e"):
        prediction.write_prediction(path, grid, larger, begun=False)
    assert json.loads(path.read_text()) == said
    rows = [*grid, *({"kind": "heldout", "loss": said["predicted_loss"] * f} for f in (1.01, 1.02, 1.03))]
    text = as_text(notes.prediction("x", rows, {}, tmp_path))
    assert "-1.96%" in text and "before the held-out runs" in text


def test_metrics_are_predicted_with_the_loss(out, tmp_path):
    _, grid = a_grid()
    rows = [{**row, "velocity_in": 0.03 + 2e3 * row["flops"] ** -0.5} for row in grid]
    runner = runner_of(small(arms=[Arm("big", {}, 3e9, kind="heldout")], compare=[]), out)
    path = tmp_path / "x-prediction.json"
    (planned, *_) = runner.trials.plan()
    assert prediction.write_prediction(path, rows, planned, False, {"velocity_in": 0.03})
    said = json.loads(path.read_text())["metrics"]["velocity_in"]
    true = 0.03 + 2e3 * 3e9**-0.5
    assert said["predicted"] == pytest.approx(true, rel=1e-3) and said["baseline"] > true
    measured = [{**row, "kind": "heldout", "velocity_in": 1.1 * true} for row in rows[:3]]
    text = as_text(notes.prediction("x", [*rows, *measured], {}, tmp_path))
    assert "velocity_in" in text and f"{1 / 1.1 - 1:+.1%}" in text
    with pytest.raises(UserError, match="no run has a number in column lost"):
        prediction.write_prediction(tmp_path / "y.json", rows, planned, False, {"lost": 0.0})
    assert not (tmp_path / "y.json").exists()


def test_a_held_out_run_has_the_size_that_the_law_says_is_best_and_keeps_it(out, tmp_path):
    law, grid = a_grid()
    sizes = [{"model.width": width, "model.head_width": 8, "model.depth": 2} for width in (8, 16, 32, 64)]
    arm = Arm("big-{size}-{budget:.3g}", {}, 3e10, kind="heldout", choices=sizes)
    trials = runner_of(small(arms=[arm], compare=[]), out).trials
    assert trials.plan() == []  # it is not known yet
    path = tmp_path / "prediction.json"
    found = prediction.at_best_size(arm, grid, trials, path)

    def loss(fields):
        (trial, *_) = trials.of(dataclasses.replace(arm, fields=fields, choices=()))
        tokens = budget.sums_per_step(trial.config).patches * trial.config.train.steps
        return law.loss(budget.params(trial.config), tokens)

    best = min(sizes, key=loss)
    assert found.fields == best and found.name == f"big-w{best['model.width']}d2-3e+10" and not found.choices
    other = next(fields for fields in sizes if fields != best)
    said = {"flops": 3e10, "run": f"big-w{other['model.width']}d2-3e+10"}
    path.write_text(json.dumps(said))
    assert prediction.at_best_size(arm, grid, trials, path).fields == other
    path.write_text(json.dumps(said | {"flops": 1e10}))  # of a smaller budget
    assert prediction.at_best_size(arm, grid, trials, path).fields == best
    prediction.keep_earlier(path, 3e10)
    assert not path.exists() and (tmp_path / "prediction-1e+10.json").exists()
