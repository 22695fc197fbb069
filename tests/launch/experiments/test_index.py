"""The table of all experiments, from the tables of their runs."""

import pytest

from launch.experiments import index, spec
from vdit.errors import UserError
from vdit.scaling.runs import write_csv


def rows_of(experiment, ratio):
    _, arm, other = experiment.compare[0]
    return [
        {"run": f"{name}-{seed}", "arm": name, "seed": seed, experiment.compare[0][0]: value * (1 + seed / 1000),
         "flops": 1e11, "train_seconds": 60.0, "params": 10, "tokens": 10, "kind": "arm"}
        for name, value in ((arm, ratio), (other, 1.0)) for seed in (0, 1, 2)
    ]  # fmt: skip


def test_every_experiment_that_was_run_has_a_line_with_its_verdict(tmp_path):
    for name, ratio in (("optimiser", 0.8), ("native", 1.3)):
        write_csv(tmp_path / f"{name}.csv", rows_of(spec.load(name), ratio))
    lines = index.index(tmp_path).splitlines()
    assert len(lines) == 2 + len(spec.names()) and "not run on this version" in lines[4]
    assert "(native.md)" in lines[2] and "| higher | +30.0%" in lines[2]
    assert "(optimiser.md)" in lines[3] and "| lower | -20.0%" in lines[3]
    assert all("6 runs, 6e+11 FLOPs, 6 min" in line for line in lines[2:4])


def test_without_runs_there_is_no_table(tmp_path):
    with pytest.raises(UserError, match="launch.experiment --name"):
        index.index(tmp_path)
