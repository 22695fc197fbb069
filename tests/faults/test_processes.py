"""One of several processes dies, hangs, fails or comes late: the others end in bounded time and name it."""

import contextlib
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
from waiting import wait_until

from data_pipelines.reading.store import Dataset
from launch.sweeps.grid import over
from launch.sweeps.settings import Local
from launch.sweeps.state import Folder, State
from launch.sweeps.status import statuses
from vdit.command.exit_status import LOST_PEER, PREEMPTED
from vdit.errors import UserError
from vdit.evaluation.reconstruction import reconstruction
from vdit.evaluation.validation import validate
from vdit.parallel import peers
from vdit.parallel.mesh import use_mesh
from vdit.parallel.preemption import Preempted
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import checkpoint_steps


class Clock:
    """Stands in for the module `time`: it is as late as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic


@pytest.fixture
def watching(tmp_path, monkeypatch):
    """Process 0 of 2, which looks for signs of life when the test says so; gives (look after seconds, messages)."""
    messages, clock = [], Clock()

    monkeypatch.setattr(peers, "_end", messages.append)
    monkeypatch.setattr(peers, "time", clock)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setenv("VDIT_SILENCE_SECONDS", "60")
    monkeypatch.setenv("VDIT_STALL_SECONDS", "3600")
    watcher = peers.Peers(tmp_path)
    watcher._thread = mock.Mock()  # what it does is done by `look`

    def look(seconds: float = 1.0) -> None:
        clock.now += seconds
        watcher._check()

    with watcher:
        yield look, messages


def other(folder, beat=1, doing="in a step", step=7) -> None:
    path = folder / "processes" / "1.json"
    path.with_suffix(".new").write_text(json.dumps({"host": "b", "pid": 9, "beat": beat, "doing": doing, "step": step}))
    path.with_suffix(".new").replace(path)


def test_a_silent_process_is_named(tmp_path, watching):
    look, messages = watching
    for beat in range(30):
        other(tmp_path, beat)
        peers.doing("in a step", beat)
        look(20)
    look(59)
    assert not messages
    look(2)
    assert messages[0] == "process 1 (b, pid 9), last in a step after step 7, sent no heartbeat for 61 s"


def test_one_that_never_comes_is_named_too(watching):
    look, messages = watching
    look()
    look(60)
    assert not messages
    look()
    assert messages == ["process 1, last not seen after step 0, sent no heartbeat for 61 s"]


def test_one_that_has_failed_is_named_with_its_reason(tmp_path, watching):
    look, messages = watching
    other(tmp_path, 1, "failed: data set x is damaged", 12)
    look()
    assert not messages  # this process may find out by itself
    look(2)
    assert messages[0].startswith("process 1 (b, pid 9), last failed: data set x is damaged after step 12")


@pytest.mark.parametrize(("theirs", "named"), [("waiting for data", "process 1 (b"), ("in a step", "process 0 (")])
def test_where_all_stand_still_the_one_that_is_waited_for_is_named(tmp_path, watching, theirs, named):
    look, messages = watching
    peers.doing("in a step" if theirs != "in a step" else "waiting for data", 7)
    for beat in range(72):
        other(tmp_path, beat, theirs)
        look(50)
    assert not messages
    other(tmp_path, 72, theirs)
    look(50)
    assert messages[0].startswith("nothing moved for 3650 s: " + named)


def test_a_long_evaluation_is_no_standstill(tmp_path, watching):
    look, messages = watching
    other(tmp_path, 3, "finished")  # is not missed
    peers.doing("evaluating", 7)
    for _ in range(5):
        peers.alive()
        look(3000)
    assert not messages


def test_evaluations_say_that_they_go_on(monkeypatch):
    moves = []
    monkeypatch.setattr(peers, "_running", mock.Mock(progressed=lambda: moves.append(1)))
    batches = [small_model.pack([small_model.clips(first=first)]) for first in (0, 50)]
    none = np.zeros(batches[0].segments_BL.shape[:1] + batches[0].grid_BN3.shape[1:2], np.float32)
    with use_mesh(small_model.one_device()):
        validate(lambda *_: (jnp.asarray(none), jnp.asarray(none)), None, batches, small_model.one_device())
    assert len(moves) == 2
    same = mock.Mock(encode=lambda video, chunk: video, decode=lambda latents, chunk: latents)
    reconstruction(same, Dataset(tiny.dataset()), "val", limit=3)
    assert len(moves) == 5


def test_storage_that_fails_ends_nothing(tmp_path, watching, monkeypatch, capfd):
    """A bucket's client raises errors of its own."""
    look, messages = watching
    other(tmp_path)
    look()
    with monkeypatch.context() as patch:
        for name in ("write_json", "read_json"):
            patch.setattr(peers, name, mock.Mock(side_effect=RuntimeError("503")))
        look()
    assert "the heartbeat could not be written (503)" in capfd.readouterr().err
    look(58)
    assert not messages
    look(70)
    assert "sent no heartbeat" in messages[0]


def test_a_thread_looks_by_itself(tmp_path, watching, monkeypatch):
    watcher, looks = peers.Peers(tmp_path), []
    watcher._every = 0.001
    monkeypatch.setattr(watcher, "_check", lambda: looks.append(threading.current_thread()))
    with watcher:
        wait_until(lambda: len(looks) > 3)
    assert set(looks) == {watcher._thread} and not watcher._thread.is_alive()


def test_one_that_has_finished_is_not_missed(tmp_path, watching):
    look, messages = watching
    other(tmp_path, 3, "finished")
    for step in range(30):
        peers.doing("saving", step)
        look(100)
    assert not messages


@pytest.mark.parametrize(
    ("error", "doing"), [(None, "finished"), (UserError("disk full"), "failed: disk full")], ids=["well", "badly"]
)
def test_how_it_ended_is_told(tmp_path, watching, error, doing):
    with pytest.raises(UserError) if error else contextlib.nullcontext(), peers.Peers(tmp_path):
        if error:
            raise error
    assert peers._read(tmp_path / "processes" / "0.json")["doing"] == doing


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
        wait_until(lambda: checkpoint_steps(workdir), started[0][0], started[0][1].read_text)
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
        assert f"process {victim} (" in text and "sent no heartbeat" in text
    step = checkpoint_steps(workdir)[-1]
    config = tiny.change(CONFIG, train={"steps": step + 5})
    again = start(tiny.write_config(tmp_path / "again.py", config), workdir, tmp_path)
    assert [process.wait(200) for process, _ in again] == [0, 0]
    assert [row["step"] for row in read_metrics(workdir)] == list(range(1, step + 6))


@pytest.mark.nightly
@pytest.mark.parametrize(
    "sent",
    [{0: signal.SIGTERM}, {1: signal.SIGINT}, {0: signal.SIGHUP}, {0: signal.SIGINT, 1: signal.SIGINT}],
    ids=["SIGTERM to one", "Ctrl-C to the other", "SIGHUP to one", "Ctrl-C to both, as in a terminal"],
)
def test_a_signal_to_real_processes_saves_one_checkpoint(tmp_path, sent):
    config = tiny.change(CONFIG, train={"checkpoint_every": 3000})
    file, workdir = tiny.write_config(tmp_path / "config.py", config), tmp_path / "run"
    started = start(file, workdir, tmp_path)
    try:
        wait_until(lambda: (workdir / "metrics.jsonl").exists(), started[0][0], started[0][1].read_text)
        for victim, number in sent.items():
            os.kill(started[victim][0].pid, number)
        assert [process.wait(LIMIT) for process, _ in started] == [PREEMPTED] * 2
    finally:
        for process, _ in started:
            process.kill()
            process.wait()
    (step,) = checkpoint_steps(workdir)
    for _, log in started:
        text = log.read_text()
        assert text.splitlines()[-1] == f"{workdir}: {Preempted(step)}" and "Traceback" not in text
    config = tiny.change(CONFIG, train={"steps": step + 2})
    again = start(tiny.write_config(tmp_path / "again.py", config), workdir, tmp_path)
    assert [process.wait(200) for process, _ in again] == [0, 0]
    assert [row["step"] for row in read_metrics(workdir)] == list(range(1, step + 3))


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
