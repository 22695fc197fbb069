"""One of several processes dies, hangs, fails or comes late: the others end in bounded time and name it."""

import dataclasses
import json
import os
import signal
import threading
import time
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_model
import tiny
from processes import free_port, start
from sweeping import sweep

from data_pipelines.reading.store import Dataset
from launch.status import statuses
from launch.sweeps.grid import over
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder, State
from vdit.errors import UserError
from vdit.evaluation.reconstruction import reconstruction
from vdit.evaluation.validation import validate
from vdit.exit_status import LOST_PEER
from vdit.parallel import peers
from vdit.parallel.mesh import use_mesh
from vdit.training.checkpoint import checkpoint_steps
from vdit.training.metrics import read_metrics


@pytest.fixture
def watching(tmp_path, monkeypatch):
    """Process 0 of 2, whose thread's end is noted; gives (Peers, messages)."""
    messages = []

    monkeypatch.setattr(peers, "_end", messages.append)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setenv("VDIT_SILENCE_SECONDS", "0.3")
    monkeypatch.setenv("VDIT_STALL_SECONDS", "1.0")
    watcher = peers.Peers(tmp_path)
    watcher._every = 0.02
    return watcher, messages


def other(folder, beat=1, doing="in a step", step=7) -> None:
    path = folder / "processes" / "1.json"
    path.with_suffix(".new").write_text(json.dumps({"host": "b", "pid": 9, "beat": beat, "doing": doing, "step": step}))
    path.with_suffix(".new").replace(path)


def wait(condition, seconds=20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_silent_process_is_named(tmp_path, watching):
    watcher, messages = watching
    with watcher:
        for beat in range(30):
            other(tmp_path, beat)
            peers.doing("in a step", beat)
            time.sleep(0.02)
        assert not messages
        wait(lambda: messages)
    assert messages[0].startswith("process 1 (b, pid 9), last in a step after step 7, gave no sign of life for")


def test_one_that_never_comes_is_named_too(watching):
    watcher, messages = watching
    with watcher:
        wait(lambda: messages)
    assert "process 1, last not seen after step 0" in messages[0]


def test_one_that_has_failed_is_named_with_its_reason(tmp_path, watching):
    watcher, messages = watching
    with watcher:
        other(tmp_path, 1, "failed: data set x is damaged", 12)
        wait(lambda: messages)
    assert messages[0].startswith("process 1 (b, pid 9), last failed: data set x is damaged after step 12")


@pytest.mark.parametrize(("theirs", "named"), [("waiting for data", "process 1 (b"), ("in a step", "process 0 (")])
def test_where_all_stand_still_the_one_that_is_waited_for_is_named(tmp_path, watching, theirs, named):
    watcher, messages = watching
    with watcher:
        peers.doing("in a step" if theirs != "in a step" else "waiting for data", 7)
        beat = 0
        while not messages:
            beat += 1
            other(tmp_path, beat, theirs)
            time.sleep(0.02)
    assert messages[0].startswith("nothing moved for 1 s: " + named)


def test_a_long_evaluation_is_no_standstill(tmp_path, watching):
    watcher, messages = watching
    with watcher:
        other(tmp_path, 3, "finished")  # is not missed
        peers.doing("evaluating", 7)
        for _ in range(80):
            peers.alive()
            time.sleep(0.02)
    assert not messages


def test_evaluations_say_that_they_go_on(monkeypatch):
    moves = []
    monkeypatch.setattr(peers, "_running", mock.Mock(goes_on=lambda: moves.append(1)))
    batches = [small_model.pack([small_model.clips(first=first)]) for first in (0, 50)]
    none = np.zeros(batches[0].segments_BL.shape[:1] + batches[0].grid_BN3.shape[1:2], np.float32)
    with use_mesh(small_model.one_device()):
        validate(lambda *_: (jnp.asarray(none), jnp.asarray(none)), None, batches, small_model.one_device())
    assert len(moves) == 2
    same = mock.Mock(encode=lambda video, chunk: video, decode=lambda latents, chunk: latents)
    reconstruction(same, Dataset(tiny.dataset()), "val", limit=3)
    assert len(moves) == 5


def test_the_thread_outlives_errors_of_its_storage(tmp_path, watching, monkeypatch, capfd):
    """A bucket's client raises errors of its own."""
    watcher, messages = watching
    write, read, failures = peers.write_json, peers.read_json, []

    def fail_at_first(real):
        def call(*arguments):
            if threading.current_thread() is watcher._thread and len(failures) < 6:
                failures.append(real)
                raise RuntimeError("503")
            return real(*arguments)

        return call

    monkeypatch.setattr(peers, "write_json", fail_at_first(write))
    monkeypatch.setattr(peers, "read_json", fail_at_first(read))
    with watcher:
        wait(lambda: messages)
    assert set(failures) == {write, read} and "no sign of life could be written (503)" in capfd.readouterr().err
    assert "gave no sign of life" in messages[0]


def test_one_that_has_finished_is_not_missed(tmp_path, watching):
    watcher, messages = watching
    with watcher:
        other(tmp_path, 3, "finished")
        for step in range(30):
            peers.doing("saving", step)
            time.sleep(0.02)
    assert not messages
    assert peers._read(tmp_path / "processes" / "0.json")["doing"] == "finished"


def test_how_it_ended_is_told(tmp_path, watching):
    watcher, _ = watching
    with pytest.raises(UserError), watcher:
        raise UserError("disk full")
    assert peers._read(tmp_path / "processes" / "0.json")["doing"] == "failed: disk full"


def test_status_names_a_silent_process(tmp_path):
    made = sweep(over("seed", 1), tmp_path)
    folder, run = Folder(tmp_path / made.name), made.runs[0]
    folder.write_plan(made, "local", Local())
    state = State()
    state.begin()
    folder.write_state(run.id, state)
    values = {"heartbeat.json": {"processes": 2, "step": 3, "time": 1000.0}}
    values |= {f"processes/{i}.json": {"time": 1000.0 - 300 * i, "host": f"h{i}", "doing": "x"} for i in range(2)}
    for name, content in values.items():
        path = folder.run(run.id) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    assert statuses(folder)[0].reason == "process 1 (h1) silent for 5 min"


CONFIG = tiny.tiny_config(steps=3000, checkpoint_every=20, evaluate_every=-1)
LIMIT = 60.0


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("victim", "number"), [(1, signal.SIGKILL), (0, signal.SIGKILL), (1, signal.SIGSTOP), (0, signal.SIGSTOP)]
)
def test_a_real_process_dies_or_stops(tmp_path, victim, number):
    file, workdir = tiny.write_config(tmp_path / "config.py", CONFIG), tmp_path / "run"
    started = start(file, workdir, tmp_path, VDIT_SILENCE_SECONDS="10")
    try:
        wait(lambda: checkpoint_steps(workdir), 200)
        os.kill(started[victim][0].pid, number)
        before = time.monotonic()
        survivor, log = started[1 - victim]
        status = survivor.wait(LIMIT)
        took, text = time.monotonic() - before, log.read_text()
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
    assert took < LIMIT
    print(status, round(took, 1), text[-600:])
    if (victim, number) == (0, signal.SIGKILL):  # JAX's own coordinator was in it: JAX aborts at once, and says so
        assert status in (LOST_PEER, -signal.SIGABRT)
        assert "leader" in text or "process 0" in text
    else:
        assert status == LOST_PEER
        assert f"process {victim} (" in text and "gave no sign of life" in text
    step = checkpoint_steps(workdir)[-1]
    config = tiny.change(CONFIG, train={"steps": step + 5})
    again = start(tiny.write_config(tmp_path / "again.py", config), workdir, tmp_path)
    assert [process.wait(200) for process, _ in again] == [0, 0]
    assert [row["step"] for row in read_metrics(workdir)] == list(range(1, step + 6))


@pytest.mark.nightly
def test_a_process_that_comes_late_and_one_that_does_not_come(tmp_path):
    config = dataclasses.replace(CONFIG, train=dataclasses.replace(CONFIG.train, steps=3))
    file, port = tiny.write_config(tmp_path / "config.py", config), str(free_port())
    first = start(file, tmp_path / "late", tmp_path, only=0, port=port)
    time.sleep(15)
    second = start(file, tmp_path / "late", tmp_path, only=1, port=port)
    assert [process.wait(200) for process, _ in first + second] == [0, 0]
    ((alone, log),) = start(file, tmp_path / "alone", tmp_path, only=0, VDIT_START_SECONDS="3")
    assert alone.wait(100) == 2
    assert "not all came within 3 s, no sign of process 1" in log.read_text()
