"""An experiment runs from data to page, resumes, and shares its runs."""

import json
import signal
import subprocess

import numpy as np
import pytest
import tiny
from small_experiment import a_grid, fake_train, rows_of, runner_of, small

from launch.experiments.pages.page import write_page
from launch.experiments.report import describe
from launch.experiments.spec import Arm, Report
from vdit.command.stopping import Stopped
from vdit.errors import UserError
from vdit.scaling.laws.seeds import mean
from vdit.scaling.runs import read_csv


def test_from_data_to_page_once(out, monkeypatch):
    monkeypatch.setattr("vdit.train.train", fake_train)
    runner, docs = runner_of(small(), out), out / "docs"
    assert runner.data.path("tiny") == out / "data" / "tiny"  # is there already
    with pytest.raises(UserError, match="was not made by data_pipelines.build --source=none minilm"):
        runner_of(small(), out, "minilm").trials.plan()
    rows = rows_of(runner)
    assert len(rows) == 6 and {row["arm"] for row in rows} == {"half", "all"}
    assert all(row["flops"] == pytest.approx(1e9, rel=0.02) and row["loss"] > 0 for row in rows)
    page = write_page(
        runner.experiment, rows, {"velocity_in": 0.01}, runner.data.paths, docs, ["the command", "of data"]
    ).read_text()
    half, whole = ([row["loss"] for row in rows if row["arm"] == name] for name in ("half", "all"))
    found = mean(half)
    assert f"{found.value:.4g} ± {found.high - found.value:.2g}" in page
    change = np.exp(np.mean(np.log(np.array(half) / np.array(whole)))) - 1
    assert f"{change:+.1%}" in page and "over 3 seeds" in page and "figures/small.svg" in page
    assert "`the command`" in page and "Data: `of data`." in page and "0.3 minutes in training steps" in page
    assert " --out=" + str(out / "data" / "tiny") in " ".join(runner.data.command("tiny"))
    assert (docs / "figures" / "small.png").stat().st_size > 1000
    results = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")}
    again = small(name="other", arms=[Arm("whole", {"data.fraction": 1.0}, 1e9)], compare=[])
    other = runner_of(again, out)
    assert {each.id for each in other.trials.plan()} < {path.parent.name for path in results}
    assert [row["loss"] for row in rows_of(other)] == whole
    assert {path: path.stat().st_mtime_ns for path in out.glob("runs/*/result.json")} == results
    assert "6 runs, 6 finished before" in runner.trials.text(runner.trials.plan(), "")


@pytest.mark.nightly
def test_the_command_trains_measures_and_writes_a_page(tmp_path):
    flags = ["--name=permanence", "--shrink=2000", "--text_encoder=none", f"--out={tmp_path}"]
    done = subprocess.run(
        tiny.command("launch.experiment", *flags), env=tiny.environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "shrunk-2000" / "docs"
    assert "came_out_wall_in" in (folder / "permanence.md").read_text()
    assert (folder / "figures" / "permanence.svg").exists() and len(read_csv(folder / "permanence.csv")) == 12


def test_the_prediction_can_be_committed_before_the_held_out_runs(out, tmp_path, monkeypatch):
    trained = []

    def train(config, workdir):
        trained.append(workdir.name)
        return fake_train(config, workdir)

    monkeypatch.setattr("vdit.train.train", train)
    runner = runner_of(small(arms=[Arm("big", {}, 3e9, kind="heldout")], compare=[], measures=()), tmp_path)
    (tmp_path / "data").symlink_to(out / "data")
    trials, grid = runner.trials.plan(), a_grid()[1]
    with pytest.raises(UserError, match="small-prediction.json is written; commit it"):
        runner.predict(trials, grid, stop=True)
    assert not trained
    runner.predict(trials, grid, stop=True)
    monkeypatch.setattr(runner, "predict", lambda *args: trained.append("predicted"))
    list(runner.rows(trials))
    assert trained == ["predicted", *(each.id for each in trials)]


def test_budgets_of_a_size_branch_off_one_trunk_that_grows(out, tmp_path, monkeypatch):
    trained, changes = [], []

    def train(config, workdir):
        trained.append((workdir.name, config.train, config.optimizer.cooldown))
        return fake_train(config, workdir)

    monkeypatch.setattr("vdit.train.train", train)
    arms = [Arm("one", {}, 1e9, kind="grid"), Arm("four", {}, 4e9, kind="grid"), Arm("long", {}, steps=7)]
    made = small(arms=arms, compare=(), measures=(), seeds=(0,), trunks=True, report=Report())
    (tmp_path / "data").symlink_to(out / "data")
    runner = runner_of(made, tmp_path)
    runner.on_change = lambda: changes.append(len(trained))
    assert "trunk of four, seed 0" in runner.trials.text(runner.trials.plan(), "")  # as long as both need
    describe(made, tmp_path, "the command")
    about = json.loads((tmp_path / "study.json").read_text())
    assert about["sizes"] == [{"width": 16, "depth": 2, "head_width": 8}] and about["command"] == "the command"
    assert (about["budgets"], about["planned"], about["held_out"]) == ([1e9, 4e9], 2, None)
    rows_of(runner)
    names = ["trunk-w16d2", "one", "trunk-w16d2", "four", "long"]
    assert [name for name, *_ in trained] == names and changes == [2, 4, 5]
    for (_, trunk, flat), (_, branch, cooldown) in zip(trained[0:4:2], trained[1:4:2], strict=True):
        assert trunk.steps == branch.steps - cooldown and trunk.keep_steps == (trunk.steps,) and flat == 0
        assert cooldown == round(0.2 * branch.steps) and branch.branch_from == "../trunk-w16d2"
    assert trained[4][1].steps == 7 and not trained[4][1].branch_from
    found = json.loads((tmp_path / "runs" / "four" / "result.json").read_text())
    assert (found["kind"], found["arm"], found["budget"], found["run"]) == ("grid", "four", 4e9, "four")
    rows_of(runner)
    assert len(trained) == len(names)
    shared = runner_of(small(arms=arms[:2], compare=(), measures=(), seeds=(0,), trunks=True), tmp_path)
    one, four = shared.trials.plan()
    assert one.run.trunk == four.run.trunk and one.run.trunk.startswith("trunk-") and one.id != "one"


def test_a_request_to_stop_in_the_last_step_stops_after_that_run(out, tmp_path, monkeypatch):
    trained = []

    def train(config, workdir):
        trained.append(config.seed)
        signal.raise_signal(signal.SIGTERM)
        return fake_train(config, workdir)

    monkeypatch.setattr("vdit.train.train", train)
    (tmp_path / "data").symlink_to(out / "data")
    runner = runner_of(small(arms=[Arm("all", {}, 1e9)], compare=[]), tmp_path)
    for count in (1, 2, 3):
        with pytest.raises(Stopped, match="stopped as asked, after .* has finished; the same command resumes"):
            rows_of(runner)
        assert len(list(tmp_path.glob("runs/*/result.json"))) == count
    assert len(rows_of(runner)) == 3 and trained == [0, 1, 2]
