"""Two processes over loopback, one device each, give what one process with two devices gives."""

import dataclasses
import shutil

import numpy as np
import pytest
import tiny
from processes import run_together

from vdit.config import MeshConfig
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import checkpoint_steps


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(config, workdir of two processes, workdir of one, what the two printed)."""
    folder = tmp_path_factory.mktemp("two")
    config = tiny.tiny_config(steps=6, evaluate_every=4, checkpoint_every=3)
    printed = run_together(tiny.write_config(folder / "config.py", config), folder / "two", folder)
    tiny.train(config, folder / "one")
    return config, folder / "two", folder / "one", printed


def test_losses_agree(runs):
    _, two, one, _ = runs
    ours, theirs = read_metrics(two), read_metrics(one)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == [1, 2, 3, 4, 4, 5, 6, 6]
    for a, b in zip(ours, theirs, strict=True):
        if "validation" in b:
            assert a["validation"]["loss"] == pytest.approx(b["validation"]["loss"], rel=1e-6)
            assert a["validation"]["val"]["examples"] == b["validation"]["val"]["examples"] == 8
        else:
            assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        for name in ("patches", "text", "examples", "flops"):
            assert a[name] == b[name]


def test_their_checkpoints_restore_in_one_process(runs):
    config, two, one, _ = runs
    assert checkpoint_steps(two) == [3, 6]
    ours, theirs = tiny.result(two, config), tiny.result(one, config)
    assert ours[1] == theirs[1]
    for name, array in theirs[0].items():
        np.testing.assert_allclose(ours[0][name], array, rtol=1e-5, atol=1e-5, err_msg=name)


def test_one_process_resumes_where_two_stopped(runs, tmp_path):
    config, two, _, _ = runs
    longer = tiny.change(config, train={"steps": 8})
    shutil.copytree(two, tmp_path / "run")
    assert tiny.train(longer, tmp_path / "run")["step"] == 8
    assert [row["step"] for row in read_metrics(tmp_path / "run")][-3:] == [7, 8, 8]


def test_only_the_first_process_writes(runs):
    _, two, _, printed = runs
    assert printed[0].count("step 6/6 train") == 1 and printed[0].count(f"{two}: step 6") == 1
    assert "step" not in printed[1]
    assert len(list((two / "tensorboard").iterdir())) == 1


@pytest.mark.nightly
def test_the_first_step_of_two_processes_is_checked(tmp_path):
    config = tiny.write_config(tmp_path / "config.py", dataclasses.replace(tiny.tiny_config(), mesh=MeshConfig(1, 2)))
    printed = run_together(config, tmp_path / "run", tmp_path, flags=("--check",))
    assert "the step (cpu 1x2x1x1, float32, chunked)" in printed[0] and "OFF" not in printed[0]
    assert "gradient" not in printed[1]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["processes"]
