"""Killed at any moment and started again, on any number of workers: the same bytes."""

import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import killable_build
import pytest
from fake_source import FakeEncoder
from inline_engine import inline
from waiting import wait_until

from data_pipelines.building import builder
from data_pipelines.building.builder import build
from data_pipelines.building.jobs import jobs
from data_pipelines.sources.registry import SOURCES
from vdit.errors import UserError
from vdit.io.storage import lock


class Killed(BaseException):
    """As if the process had been killed: nothing catches it."""


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small jobs."""
    monkeypatch.setattr(jobs, "JOB_INPUTS", jobs.JOB_INPUTS)
    with mock.patch.dict(SOURCES):
        killable_build.prepare()
        yield


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed build."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with mock.patch.dict(SOURCES), mock.patch.object(jobs, "JOB_INPUTS", killable_build.JOB_INPUTS):
        killable_build.prepare()
        build(killable_build.args(str(out), workers=2), FakeEncoder())
    assert sum("noisy-train" in path.name for path in out.iterdir()) > 5
    assert sum("noisy-val" in path.name for path in out.iterdir()) > 1
    return contents(out)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_matter(tmp_path: pathlib.Path, expected: dict[str, bytes], workers: int) -> None:
    build(killable_build.args(str(tmp_path / "out"), workers), FakeEncoder())
    assert contents(tmp_path / "out") == expected


STEPS = [(os, "replace"), (os, "rename"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")]


def build_until(out: pathlib.Path, step: int) -> bool:
    """Builds until files have been renamed or removed `step` times; says whether the build was killed."""
    count = 0

    def killing(function, after: bool):
        def call(*args, **kwargs):
            nonlocal count
            if str(args[0]).endswith(lock.NAME):  # it would name this process, which lives on
                return function(*args, **kwargs)
            count += 1
            if count == step and not after:
                raise Killed
            try:
                return function(*args, **kwargs)
            finally:
                if count == step:
                    raise Killed

        return call

    with inline():
        patches = [
            mock.patch.object(owner, name, killing(getattr(owner, name), step % 2 == 0)) for owner, name in STEPS
        ]
        for patch in patches:
            patch.start()
        try:
            build(killable_build.args(str(out)), FakeEncoder())
        except Killed:
            return True
        finally:
            for patch in patches:
                patch.stop()
    return False


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.nightly)])
def test_killed_at_every_step(tmp_path: pathlib.Path, expected: dict[str, bytes], stride: int) -> None:
    """Every renaming and removing of a file is a place to be killed, before it or after it."""
    for step in range(1, 1000, stride):
        out = tmp_path / f"out-{step}"
        killed = build_until(out, step)
        assert contents(out) == expected if out.exists() else killed  # whole or absent
        if killed:
            build_until(out, step + 7)  # a second time, somewhere else
            with inline():
                build(killable_build.args(str(out)), FakeEncoder())
        assert contents(out) == expected, step
        shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == []
        if not killed:
            break
    assert step > 40


def test_killed_with_signal_9(tmp_path: pathlib.Path, expected: dict[str, bytes]) -> None:
    """The real thing, at places spread over the build; workers are not killed and must not do harm."""
    out, waits = tmp_path / "out", tmp_path / "out.waits"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for workers, count in ((2, 0), (3, 4), (1, 3)):
        command = [sys.executable, "-m", "killable_build", str(out), str(workers), str(count)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        wait_until(waits.exists, process)
        process.kill()
        process.wait()
        waits.unlink()
    assert list(tmp_path.glob("out.partial/jobs/*.npz")) and not out.exists()
    build(killable_build.args(str(out), workers=2), FakeEncoder())
    assert contents(out) == expected


def test_what_was_lost_is_made_again(tmp_path: pathlib.Path, expected: dict[str, bytes]) -> None:
    """Half-written or missing files, as after a power cut."""
    out = tmp_path / "out"
    assert build_until(out, 19)
    shards = sorted(tmp_path.glob("out.partial/data/noisy-*"))
    results = sorted(tmp_path.glob("out.partial/jobs/*.npz"))
    assert len(shards) > 3 and len(results) > 3
    shards[0].write_bytes(shards[0].read_bytes()[:-5])
    shards[1].unlink()
    results[2].write_bytes(results[2].read_bytes()[:-5])
    build(killable_build.args(str(out)), FakeEncoder())
    assert contents(out) == expected


def test_other_arguments_do_not_go_on(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    assert build_until(out, 24)
    with pytest.raises(UserError, match="unfinished build with limit 30; finish it with the same"):
        build(builder.BuildArgs("noisy", str(out)), FakeEncoder())
    shutil.rmtree(tmp_path / "out.partial")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "precious").touch()
    with pytest.raises(UserError, match="is in the way"):
        build(killable_build.args(str(out)), FakeEncoder())


def test_two_builds_at_once(tmp_path: pathlib.Path) -> None:
    out, refused = tmp_path / "out", []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "killable_build", str(out), "1", "0"]

    class Second(FakeEncoder):
        """While the first build is at work, a second is started."""

        def encode(self, texts):
            if not refused:
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
                refused.append(done.stderr.strip().splitlines()[-1])
            return super().encode(texts)

    with inline():
        build(killable_build.args(str(out)), Second())
    assert f"out.partial is written by process {os.getpid()}" in refused[0]
