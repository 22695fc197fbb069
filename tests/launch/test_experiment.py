"""Experiments: the committed ones make sense, and one runs from data to page, resumes, and shares its runs."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import tiny

from launch.experiments import notes, prediction, spec, stats
from launch.experiments import page as experiment_page
from launch.experiments.measures import MEASURES
from launch.experiments.notes import NOTES
from launch.experiments.page import write_page
from launch.experiments.runner import Runner
from launch.experiments.spec import Arm, Experiment, Figure
from launch.experiments.trials import Trial
from launch.sweeps import budget
from launch.sweeps.expand import merged
from vdit.config import Config
from vdit.config_dict import build, to_dict
from vdit.errors import UserError
from vdit.render.pages import Page, Section, markdown
from vdit.scaling.laws.laws import Law
from vdit.scaling.laws.seeds import mean
from vdit.scaling.runs import read_csv


def small(**changes) -> Experiment:
    base = to_dict(tiny.tiny_config(log_every=2))
    arms = [Arm("half", {"data.fraction": 0.5}, 1e9, group="a"), Arm("all", {}, 1e9, group="b")]
    values = {
        "name": "small",
        "title": "Half of the data",
        "claim": "Half is enough.",
        "question": "Is it?",
        "data": {"tiny": ("data_pipelines.build", "--source=none")},
        "base": base,
        "arms": arms,
        "measures": ("loss",),
        "figures": (Figure("epochs", ("loss",), "loss"), Figure("arm", ("loss",), "loss", log_y=False)),
        "compare": [("loss", "half", "all")],
    }
    return Experiment(**{**values, **changes})


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    path = tmp_path_factory.mktemp("experiments")
    shutil.copytree(tiny.dataset(), path / "data" / "tiny")
    (path / "data" / "tiny.txt").write_text("data_pipelines.build --source=none none")
    return path


def fake_train(config, workdir):
    """A run that takes no time: the loss falls with the share of the data, and differs by seed."""
    sums = budget.sums_per_step(config)
    patches = sums.patches * config.train.steps
    loss = 0.3 + 0.1 * (1 - config.data.fraction) + 0.01 * config.seed
    workdir.mkdir(parents=True, exist_ok=True)
    return {
        **{"step": config.train.steps, "patches": patches, "text": 0, "examples": 9, "data_wait": 0.0, "seconds": 3.0},
        **{"params": 100, "params_total": 120, "flops": budget.flops_per_step(config) * config.train.steps},
        **{"epochs": patches / budget.unique_patches(config), "train_seconds": 3.0, "unique_tokens": 10},
        "validation": {"loss": loss, "loss_interval": [loss, loss]},
    }


def runner_of(made, out, encoder="none"):
    docs = out / "docs"
    docs.mkdir(exist_ok=True)
    return Runner(made, out, encoder, docs)


def rows_of(runner):
    return list(runner.rows(runner.trials.plan()))


def as_text(blocks):
    """Parts of a page as they stand on it."""
    return markdown(Page("", [], [Section("", "", blocks)]))


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


@pytest.mark.parametrize("name", spec.names())
def test_committed_experiments_make_sense(name):
    found = spec.load(name)
    assert len(found.seeds) >= 3 and found.minutes <= 75
    for arm in found.arms:
        fields = {"data.path": "{data}", **arm.fields}
        assert isinstance(build(merged(dict(found.base), fields), Config), Config)
        path = str(arm.fields.get("data.path", ""))
        assert set(path.strip("{}").split("},{")) <= {"", *found.data}
    for measure in found.measures:
        kind, _, of = measure.partition(":")
        assert kind in MEASURES and of in ("", *found.data)
    assert set(found.notes) <= set(NOTES) and set(found.floors) <= set(found.data)
    small = spec.shrunk(found, 100)
    assert sum(arm.budget for arm in small.arms) == pytest.approx(sum(arm.budget for arm in found.arms) / 100)


def test_data_sets_of_one_name_are_made_by_one_command():
    made = {}
    for name in spec.names():
        for data, command in spec.load(name).data.items():
            assert made.setdefault(data, tuple(command)) == tuple(command), data


def test_all_claims_of_the_study_are_there():
    wanted = {"compute", "data", "native", "packing", "physics", "combinations", "permanence", "captions", "images"}
    assert wanted == set(spec.names())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1)}, "2 seeds; an interval over seeds needs 3"),
        ({"compare": [("loss", "half", "none")]}, "not both arms"),
        ({"arms": [Arm("half")]}, "one of budget, seconds and steps"),
        ({"arms": [Arm("half", {}, 1.0), Arm("half", {}, 2.0)]}, "two arms have one name"),
    ],
)
def test_experiments_without_sense_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        small(**changes)
    with pytest.raises(UserError, match="is not one of .*physics"):
        spec.load("nothing")


def a_grid():
    law = Law(A=3.0, B=55.0, E=0.09, alpha=0.33, beta=0.42)
    rows = [
        {"kind": "grid", "run": f"{n}-{c}", "flops": c, "params": n, "tokens": c / 6 / n, "width": 4, "depth": 1}
        | {"loss": float(law.loss(n, c / 6 / n)), "budget": c}
        for c in (1e8, 4e8, 1.6e9)
        for n in (1e3, 4e3, 1.6e4)
    ]
    return law, rows


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


def test_a_trend_is_judged_by_the_exponents_of_the_seeds():
    def rows(*exponents):
        return [
            {"kind": "arm", "seed": seed, "budget": c, "flops": c, "loss": c**-0.1, "x": c**exponent}
            for seed, exponent in enumerate(exponents)
            for c in (1e8, 4e8, 1.6e9)
        ]  # fmt: skip

    wanted = dataclasses.replace(small(), compare=(), laws=[("x", "")])
    (found,) = experiment_page._findings(wanted, rows(-0.2, -0.3, -0.4))
    assert "**falls** with compute: exponent -0.3 (95% interval over 3 seeds -0.548 to -0.0516)" in found
    (found,) = experiment_page._findings(wanted, rows(-0.1, -0.3, -0.5))  # all fall, but three seeds do not show it
    assert "**no trend**" in found
    (found,) = experiment_page._findings(wanted, rows(0.2, 0.3, 0.4))
    assert "**rises** with compute" in found
    (found,) = experiment_page._findings(wanted, [*rows(-0.2, -0.3, -0.4)[:-1]])  # seed 2 lacks a budget
    assert "over 2 seeds" in found
    (found,) = experiment_page._findings(wanted, rows(-0.2))
    assert "fewer than two seeds" in found


def test_how_full_rows_are(out):
    lines = as_text(notes.fill("packing", [], {"physics": out / "data" / "tiny"}, out)).strip().splitlines()[-3:]
    shares = [[float(part[:-1]) for part in line.replace(" ", "").split("|")[2:4] if part] for line in lines]
    assert len(shares) == 3 and len(shares[0]) == 1
    assert all(own >= rows for rows, own in shares[1:]) and shares[1][1] >= shares[2][1]
    assert notes.own_shapes(np.array([4, 1, 2, 3]), 1) == 10 / 16
    assert notes.own_shapes(np.array([4, 1, 2, 3]), 2) == 10 / 12


def test_a_build_that_is_stopped_leaves_no_process():
    child = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    script = f"from launch.experiments.data_sets import run_command; print(run_command({child!r}))"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=tiny.environment())
    pid = int(parent.stdout.readline())
    parent.terminate()
    assert parent.communicate(timeout=30)[0] == f"{-signal.SIGTERM}\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_arms_are_compared_seed_by_seed():
    rows = [{"arm": arm, "seed": s, "x": v * (1 + s)} for arm, v in (("a", 1.1), ("b", 1.0)) for s in (0, 1, 2)]
    found = stats.compare(rows, "x", "a", "b")
    assert found.verdict == "higher" and found.change.value == pytest.approx(0.1) and found.change.count == 3
    rows = [{"arm": arm, "seed": s, "x": v} for arm, vs in (("a", (0, 0.5, 1)), ("b", (0.4, 0.5, 0.6))) for s, v in
            enumerate(vs)]  # fmt: skip
    found = stats.compare(rows, "x", "a", "b")
    assert not found.ratio and found.verdict == "no difference shown" and found.change.low < 0 < found.change.high
    assert stats.compare(rows, "y", "a", "b") is None
    assert "shows nothing" in stats.compare(rows[::3], "x", "a", "b").words()
    one = mean([1.0])
    assert np.isinf(one.high)


def test_lengths_by_time_are_measured_once(out, monkeypatch, capsys):
    arms = [Arm("timed", {}, seconds=12.0), Arm("other", {"optimizer.clip": 2.0}, seconds=12.0)]
    trials = runner_of(small(arms=arms, compare=[]), out).trials
    made = []

    def train(config, workdir):
        made.append(config.train.steps)
        workdir.mkdir(parents=True)
        rows = [{"step": s, "seconds": 5 + 0.1 * s + 9 * (s > 100)} for s in (50, 100, 150, 200)]  # one hiccup
        (workdir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    monkeypatch.setattr("vdit.train.train", train)
    assert trials.plan(measure=False) == [] and not made
    assert "timed: 12 s a run; its steps are unknown" in capsys.readouterr().out
    assert "0 runs, 0 finished before" in trials.text([], "")
    plan = trials.plan()
    assert [each.config.train.steps for each in plan] == [120] * 6 and made == [400] * 2
    assert [(each.arm.name, each.seed) for each in plan] == [(arm.name, seed) for seed in (0, 1, 2) for arm in arms]
    assert trials.plan(measure=False) == plan
    assert isinstance(plan[0], Trial) and len({each.id for each in plan}) == 6


def test_a_page_needs_no_measure_of_every_arm(tmp_path):
    common = {"kind": "arm", "params": 10, "tokens": 1.0, "epochs": 1.0, "flops": 1e9, "budget": 1e9}
    common |= {"train_seconds": 1.0, "seconds": 2.0}
    rows = [
        {**common, "arm": arm, "group": arm, "seed": seed, "run": f"{arm}{seed}", "loss": 0.1 + seed / 100}
        | ({"kid": 0.2} if arm == "all" else {})
        for arm in ("half", "all")
        for seed in (0, 1, 2)
    ]
    wanted = dataclasses.replace(small(), laws=[("kid", "")], figures=(Figure("flops", ("kid",), "KID"),))
    page = write_page(wanted, rows, {}, {}, tmp_path, ["c"]).read_text()
    assert "No law of `kid`: kid is known at one budget only" in page
    assert "balls" not in page and "tuned" not in page


def test_a_new_measure_has_a_column_whatever_its_name(tmp_path):
    common = {"kind": "arm", "params": 10, "tokens": 1.0, "epochs": 1.0, "flops": 1e9, "train_seconds": 1.0}
    rows = [{**common, "arm": "half", "group": "a", "seed": s, "run": f"r{s}", "gripper_slip": 0.25} for s in (0, 1, 2)]
    page = write_page(small(), rows, {}, {}, tmp_path, ["c"]).read_text()
    assert "| gripper_slip |" in page and "| 0.25 ± 0 |" in page


def test_figures_are_drawn_again_from_the_tables(tmp_path):
    shutil.copy("docs/experiments/packing.csv", tmp_path)
    command = [sys.executable, "-m", "launch.experiments.figures", f"--docs={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "packing.svg" in done.stdout, done.stderr
    assert (tmp_path / "figures" / "packing.png").read_bytes().startswith(b"\x89PNG")
    failed = subprocess.run([*command, "nothing"], capture_output=True, text=True)
    assert failed.returncode == 2 and failed.stderr.count("\n") == 1 and "nothing" in failed.stderr
