"""A run that is stopped and goes on gives what an undisturbed run gives, bit for bit."""

import functools
import os
import shutil
import signal
import subprocess
import time

import pytest
import tiny

from vdit.training.checkpoint import checkpoint_steps
from vdit.training.metrics import read_metrics

CONFIG = tiny.tiny_config(steps=6, evaluate_every=3)
ROWS = 6 + 2  # of steps and of validations


@functools.cache
def undisturbed(checkpoint_every: int):
    config = tiny.change(CONFIG, train={"checkpoint_every": checkpoint_every})
    workdir = tiny.folder() / f"undisturbed-{checkpoint_every}"
    tiny.train(config, workdir)
    return config, tiny.result(workdir, config)


def test_the_undisturbed_run_writes_every_row_once():
    _, (_, position, rows) = undisturbed(1)
    assert [(row["step"], "validation" in row) for row in rows] == [
        *((1, False), (2, False), (3, False), (3, True)),
        *((4, False), (5, False), (6, False), (6, True)),
    ]
    assert position["step"] == 6 and position["next_row"] == 12


@pytest.mark.parametrize("checkpoint_every", [1, 4])
@pytest.mark.parametrize("rows", range(1, ROWS + 1))
def test_stopped_after_any_row(tmp_path, checkpoint_every, rows):
    config, expected = undisturbed(checkpoint_every)
    assert not tiny.train_until(config, tmp_path, rows)
    assert len(read_metrics(tmp_path)) == rows
    tiny.train(config, tmp_path)
    tiny.assert_same_result(tmp_path, expected, config)


def test_stopped_again_and_again(tmp_path):
    config, expected = undisturbed(1)
    runs = 1
    while not tiny.train_until(config, tmp_path, 2):
        runs += 1
        assert runs < 20
    assert runs > 3
    tiny.assert_same_result(tmp_path, expected, config)


def test_an_unfinished_save_does_not_count(tmp_path):
    config, expected = undisturbed(1)
    tiny.train_until(config, tmp_path, 4)
    checkpoints = tmp_path / "checkpoints"
    newest = checkpoint_steps(tmp_path)[-1]
    shutil.copytree(checkpoints / str(newest), checkpoints / f"{newest + 1}.orbax-checkpoint-tmp")
    assert checkpoint_steps(tmp_path)[-1] == newest
    tiny.train(config, tmp_path)
    tiny.assert_same_result(tmp_path, expected, config)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    config, expected = undisturbed(1)
    first = tiny.train(config, tmp_path)
    again = tiny.train(config, tmp_path)
    timing = ("seconds", "data_wait")
    assert {k: v for k, v in again.items() if k not in timing} == {k: v for k, v in first.items() if k not in timing}
    tiny.assert_same_result(tmp_path, expected, config)


def test_killed_process(tmp_path):
    """SIGKILL somewhere in the middle, as a machine that is taken away does it."""
    config = tiny.tiny_config(steps=60, evaluate_every=30, checkpoint_every=7)
    file = tiny.write_config(tmp_path / "config.py", config)
    workdir, log = tmp_path / "run", tmp_path / "log"
    command = tiny.command("vdit.train", f"--config={file}", f"--workdir={workdir}")
    with log.open("w") as output:
        process = subprocess.Popen(command, env=tiny.environment(devices=2), stdout=output, stderr=output)
        deadline = time.monotonic() + 120
        while len(read_metrics(workdir)) < 20 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, log.read_text()
    last = read_metrics(workdir)[-1]["step"]
    assert 20 <= last < 60, log.read_text()
    tiny.train(config, workdir)
    undisturbed_workdir = tmp_path / "undisturbed"
    tiny.train(config, undisturbed_workdir)
    tiny.assert_same_result(workdir, tiny.result(undisturbed_workdir, config), config)
