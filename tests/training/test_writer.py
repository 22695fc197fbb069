"""A workdir has one writer, and readers beside it take the newest whole checkpoint."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path

import pytest
import tiny

from vdit.errors import UserError
from vdit.io.files import write_text
from vdit.io.storage.lock import NAME, TakenOver, one_writer, writer_of
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import Checkpoints, checkpoint_steps

CONFIG = tiny.tiny_config(steps=6, checkpoint_every=2, evaluate_every=-1)


def taken_over(workdir: Path) -> None:
    """What another machine leaves that has taken over while this process was frozen."""
    values = json.loads((workdir / NAME).read_text())
    write_text(workdir / NAME, json.dumps({**values, "token": "theirs", "host": "elsewhere", "machine": "another"}))


def test_a_second_trainer_is_refused_and_the_first_is_not_disturbed(tmp_path):
    config = tiny.write_config(tmp_path / "c.py", CONFIG)
    command = tiny.command("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    refused = []

    def second(row) -> None:
        if row["step"] == 3:
            refused.append(subprocess.run(command, env=tiny.environment(), capture_output=True, text=True))

    tiny.train(CONFIG, tmp_path / "run", second)
    (one,) = refused
    assert one.returncode == 2 and one.stderr.count("\n") == 1
    assert f"error: {tmp_path / 'run'} is written by process" in one.stderr
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3, 4, 5, 6]
    assert writer_of(tmp_path / "run") is None


def test_a_trainer_that_was_frozen_writes_nothing_once_another_has_taken_over(tmp_path):
    def freeze(row) -> None:
        if row["step"] == 3:
            taken_over(tmp_path / "run")

    with pytest.raises(TakenOver, match="is now written by process .* on elsewhere"):
        tiny.train(CONFIG, tmp_path / "run", freeze)
    assert [row["step"] for row in read_metrics(tmp_path / "run")] == [1, 2, 3]
    assert checkpoint_steps(tmp_path / "run") == [2]
    assert json.loads((tmp_path / "run" / NAME).read_text())["token"] == "theirs"


def test_a_start_that_is_refused_leaves_nothing(tmp_path):
    splash = tiny.change(CONFIG, model={"attention": "gpu"})
    with pytest.raises(UserError, match="attention=gpu"):
        tiny.train(splash, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    tiny.train(CONFIG, tmp_path / "run")


def test_a_run_without_a_checkpoint_takes_another_config(tmp_path):
    """As after one that had no memory for its first step."""

    def fail(row) -> None:
        raise MemoryError

    with pytest.raises(MemoryError):
        tiny.train(CONFIG, tmp_path / "run", fail)
    assert (tmp_path / "run" / "config.json").exists() and not checkpoint_steps(tmp_path / "run")
    tiny.train(tiny.change(CONFIG, optimizer={"learning_rate": 1e-3}), tmp_path / "run")


def test_another_rate_or_length_is_told_how_to_go_on(tmp_path):
    config, workdir = tiny.long_run()
    for change in ({"learning_rate": 1e-4}, {"cooldown": 7}):
        with pytest.raises(UserError, match=f"init_from={workdir} .*branch_from={workdir}"):
            tiny.train(tiny.change(config, optimizer=change), workdir)


def test_readers_beside_a_trainer_take_the_newest_whole_checkpoint(tmp_path):
    """One checkpoint is kept, so whoever reads it has it deleted under him."""
    config = tiny.tiny_config(steps=16, checkpoint_every=1, evaluate_every=-1, keep=1)
    tiny.train(tiny.change(config, train={"steps": 1}), tmp_path / "run")
    read, over = [], threading.Event()
    failed: list[BaseException] = []

    def reader() -> None:
        while not over.is_set():
            try:
                read.append(tiny.restored(tmp_path / "run", config).position.step)
            except BaseException as error:
                failed.append(error)
                return

    thread = threading.Thread(target=reader)
    thread.start()
    try:
        tiny.train(config, tmp_path / "run")
    finally:
        over.set()
        thread.join()
    assert not failed, failed
    assert read == sorted(read) and read[-1] > 1


def test_a_checkpoint_that_is_deleted_while_it_is_read_makes_way_for_the_next(tmp_path, monkeypatch):
    config = tiny.tiny_config(steps=4, checkpoint_every=1, evaluate_every=-1, keep=4)
    tiny.train(config, tmp_path / "run")
    restore, steps = Checkpoints.restore, []

    def deleting(self, like, step):
        steps.append(step)
        if len(steps) == 1:
            for name in ("3", "4"):
                (self.path / name).rename(tmp_path / name)
            (tmp_path / "3").rename(self.path / "5")
        return restore(self, like, step)

    monkeypatch.setattr(Checkpoints, "restore", deleting)
    run = tiny.restored(tmp_path / "run", config)
    assert steps == [4, 5] and run.position.step == 3


def test_a_sampler_does_not_lock(tmp_path):
    config, workdir = tiny.long_run()
    with one_writer(workdir):
        assert tiny.restored(workdir, config).position.step == 60
