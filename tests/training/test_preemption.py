"""SIGTERM becomes a checkpoint: the run stops, says so, and goes on later as if nothing had happened."""

import functools
import os
import signal
import sys

import cli
import jax
import pytest
import tiny
from jax.experimental import multihost_utils

from vdit.command.exit_status import PREEMPTED
from vdit.io.files import read_json
from vdit.parallel.preemption import Preempted, notice
from vdit.scaling import runs
from vdit.training.record import metrics
from vdit.training.recovery import rollback
from vdit.training.recovery.checkpoint import Position, checkpoint_steps

CONFIG = tiny.tiny_config(steps=6, checkpoint_every=5, evaluate_every=3)


@functools.cache
def undisturbed():
    tiny.train(CONFIG, tiny.folder() / "not-preempted")
    return tiny.result(tiny.folder() / "not-preempted", CONFIG)


def terminate(row, step: int = 2) -> None:
    if row["step"] == step:
        os.kill(os.getpid(), signal.SIGTERM)


def test_sigterm_saves_a_checkpoint_between_those_planned_and_the_run_resumes(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted, match="after step 3") as stopped:  # step 3 had been dispatched
        tiny.train(CONFIG, tmp_path, terminate)
    assert stopped.value.step == 3 and checkpoint_steps(tmp_path) == [3]
    assert signal.getsignal(signal.SIGTERM) == before
    beat = read_json(tmp_path / "heartbeat.json")
    assert (beat["state"], beat["step"], beat["steps"]) == ("preempted", 3, 6)
    tiny.train(CONFIG, tmp_path)
    tiny.assert_same_result(tmp_path, undisturbed(), CONFIG)
    assert read_json(tmp_path / "heartbeat.json")["state"] == "finished"


def test_sigterm_in_the_step_that_diverges_stops_the_next_attempt(tmp_path, monkeypatch):
    before, attempts = signal.getsignal(signal.SIGTERM), []
    monkeypatch.setattr(rollback, "_roll_back", lambda *_: None)

    def attempt():
        with notice() as stop:
            attempts.append(stop.reached(1))
            if len(attempts) == 1:
                os.kill(os.getpid(), signal.SIGTERM)
                raise rollback.Diverged(Position(), Position())

    rollback.train_with_rollback(attempt, tmp_path, CONFIG.train, lambda rows: [])
    assert attempts == [False, True] and signal.getsignal(signal.SIGTERM) == before
    with notice() as stop:
        assert not stop.reached(1)


def test_exit_status_and_result_of_the_command(tmp_path, capfd, monkeypatch):
    run = cli.runner(capfd)
    flags = (f"--config={tiny.write_config(tmp_path / 'c.py', CONFIG)}", f"--workdir={tmp_path / 'run'}")
    write = metrics.MetricWriter.write
    with monkeypatch.context() as patch:
        patch.setattr(metrics.MetricWriter, "write", lambda self, row: (write(self, row), terminate(row)))
        stopped = run("vdit.train", *flags)
    assert stopped.status == PREEMPTED == 75
    assert stopped.out.splitlines()[-1].endswith("stopped as asked, after step 3; the same command resumes from there")
    assert not (tmp_path / "run" / "result.json").exists()
    assert run("vdit.train", *flags).status == 0
    result = read_json(tmp_path / "run" / "result.json")
    assert (result["steps"], result["kind"], result["width"]) == (6, "grid", 16)
    assert 0 < result["loss_interval"][0] <= result["loss"] <= result["loss_interval"][1]
    tiny.assert_same_result(tmp_path / "run", undisturbed(), CONFIG)


def test_a_run_whose_output_nobody_reads_saves_and_says_so_on_stderr(tmp_path, capfd, monkeypatch):
    flags = (f"--config={tiny.write_config(tmp_path / 'c.py', CONFIG)}", f"--workdir={tmp_path / 'run'}")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as nobody, monkeypatch.context() as patch:  # as with | head -1
        patch.setattr(sys, "stdout", nobody)
        stopped = cli.runner(capfd)("vdit.train", *flags)
    assert stopped.status == PREEMPTED
    (step,) = checkpoint_steps(tmp_path / "run")
    assert stopped.err == f"{tmp_path / 'run'}: {Preempted(step)}\n"


def test_a_terminal_that_closes_saves_a_checkpoint(tmp_path):
    def hang_up(row) -> None:
        if row["step"] == 2:
            os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Preempted, match="after step 3"):
        tiny.train(CONFIG, tmp_path, hang_up)
    assert checkpoint_steps(tmp_path) == [3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_with_several_processes_every_signal_becomes_the_one_that_jax_passes_on(monkeypatch, number):
    """JAX listens for SIGTERM itself then, and all agree on a step; tests/faults/test_processes.py has real ones."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step if heard else False)
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda *_: heard.append(number))
    try:
        with notice() as stop:
            signal.signal(signal.SIGTERM, lambda *_: heard.append(number))  # as JAX does in C++, whatever Python has
            assert not stop.reached(1)
            signal.raise_signal(number)
            assert heard == [number] and stop.reached(2)
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("moment", ["in the last step", "once it is done"])
def test_a_run_that_is_asked_to_stop_in_its_last_step_finishes(tmp_path, capfd, monkeypatch, moment):
    asked_too_late = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked_too_late.append(True))
    write, account = metrics.MetricWriter.write, runs.result_row
    with monkeypatch.context() as patch:
        if moment == "in the last step":
            ask = lambda self, row: (write(self, row), terminate(row, CONFIG.train.steps))  # noqa: E731
            patch.setattr(metrics.MetricWriter, "write", ask)
        else:
            patch.setattr(runs, "result_row", lambda *them: (terminate({"step": 2}), account(*them))[1])
        flags = (f"--config={tiny.write_config(tmp_path / 'c.py', CONFIG)}", f"--workdir={tmp_path / 'run'}")
        done = cli.runner(capfd)("vdit.train", *flags)
    after = signal.signal(signal.SIGTERM, before)
    assert done.status == 0 and done.out.splitlines()[-1].endswith("; asked to stop, but finished first")
    assert not asked_too_late and after is not before
    assert read_json(tmp_path / "run" / "result.json")["steps"] == 6
    tiny.assert_same_result(tmp_path / "run", undisturbed(), CONFIG)
