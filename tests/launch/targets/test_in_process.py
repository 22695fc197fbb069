"""Runs in this process: what their folder says of them while they run and when they end."""

import json
import os

import pytest
import sweeping

from launch.sweeps import status
from launch.sweeps.grid import over
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder
from launch.targets import in_process, local, registry
from vdit.errors import UserError
from vdit.parallel.preemption import Preempted

RESULT = {"step": 6, "patches": 10, "text": 1, "examples": 2, "flops": 3.0, "params": 4, "params_total": 5}
RESULT |= {"seconds": 1.0, "data_wait": 0.0}


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """(folder, run, function that sets what training does)."""
    made = sweeping.sweep(over("seed", 1), tmp_path)
    folder = Folder(tmp_path / "experiments")
    folder.write_plan(made, "local", Local())
    monkeypatch.setattr("vdit.train.train", lambda config, workdir: outcome[-1]())
    outcome = []
    return folder, made.runs[0], outcome.append


def state(folder):
    (row,) = status.statuses(folder)
    return row.state


def test_a_run_is_running_then_finished_and_trained_once(begun):
    folder, run, training = begun
    seen = []

    def train():
        seen.append((state(folder), folder.state(run.id).pids))
        with pytest.raises(UserError, match="is being trained by another process; see launch.status"):
            in_process.train(run, folder)
        return {**RESULT, "validation": {"loss": 0.5}}

    training(train)
    assert state(folder) == "planned"
    result = in_process.result_of(run, folder)
    assert seen == [("running", [os.getpid()])] and state(folder) == "finished"
    assert result["loss"] == 0.5 and result["seed"] == 1 and result["started"] and result["seconds"] >= 0
    training(lambda: pytest.fail("trained twice"))
    assert in_process.result_of(run, folder) == result


def test_a_run_that_is_stopped_or_fails_says_so_and_can_be_resumed(begun):
    folder, run, training = begun

    def fail(error):
        def train():
            raise error

        return train

    for error, name, reason in (
        (Preempted(3), "stopped", ""),
        (UserError("model.width is\nwrong"), "failed", "model.width is wrong"),
        (ValueError(), "failed", "ValueError"),
    ):
        training(fail(error))
        with pytest.raises(type(error)):
            in_process.result_of(run, folder)
        assert (state(folder), folder.state(run.id).reason) == (name, reason)
    training(lambda: RESULT)
    in_process.result_of(run, folder)
    assert [attempt["status"] for attempt in folder.state(run.id).attempts] == [75, 2, 1, 0]


def test_a_state_of_another_version_is_read(begun):
    folder, run, _ = begun
    path = folder.run(run.id) / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"state": "stopped", "attempts": [], "of_old": 1}))
    assert state(folder) == "stopped"


def test_to_stop_one_of_them_is_to_stop_their_process(begun, monkeypatch):
    folder, run, training = begun
    longer = sweeping.sweep(over("seed", 1, 2), folder.path.parent)
    folder.write_plan(longer, "local", Local())
    signalled = []
    monkeypatch.setattr(local, "_terminate", signalled.extend)

    def train():
        assert registry.stop(folder, [run.id]) == f"{folder.path} is asked to stop"
        return RESULT

    training(train)
    with folder.launcher():
        in_process.train(run, folder)
    assert signalled == [os.getpid()]
