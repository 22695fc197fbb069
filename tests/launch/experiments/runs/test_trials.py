"""Lengths of runs that are given seconds."""

import json

from small_experiment import runner_of, small

from launch.experiments.runs.trials import Trial
from launch.experiments.spec import Arm


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
