"""Killed at any moment and started again, on any number of workers and machines: the same bytes."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import killable_build
import pytest
from fake_source import FakeEncoder
from waiting import wait_until

from data_pipelines import build as build_module
from data_pipelines.build import build
from data_pipelines.building import assemble, jobs, staged, worker
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.registry import SOURCES
from vdit.errors import UserError


class Killed(BaseException):
    """As if the process had been killed: nothing catches it."""


class InlinePool:
    """Does jobs in this process, so that many builds take little time."""

    def __init__(self, *_) -> None: ...

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None: ...

    def run(self, todo, finished):
        for job in todo:
            if not finished(job):
                worker.do(job, lambda _: None, lambda _: None)
            yield from staged.finished_chunks(job.folder, job.number)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small shards, jobs and chunks."""
    monkeypatch.setattr(build_module, "PartWriter", build_module.PartWriter)
    monkeypatch.setattr(jobs, "JOB_INPUTS", jobs.JOB_INPUTS)
    monkeypatch.setattr(staged, "CHUNK_BYTES", staged.CHUNK_BYTES)
    monkeypatch.setattr(assemble, "CHUNK_CLIPS", 10)
    with mock.patch.dict(SOURCES):
        killable_build.prepare()
        yield


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of an undisturbed build."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with mock.patch.dict(SOURCES), mock.patch.object(build_module, "PartWriter", build_module.PartWriter):
        before = jobs.JOB_INPUTS, staged.CHUNK_BYTES
        killable_build.prepare()
        build(killable_build.args(str(out), workers=2), FakeEncoder())
        jobs.JOB_INPUTS, staged.CHUNK_BYTES = before
    assert sum("noisy-train" in path.name for path in out.iterdir()) > 5
    assert sum("noisy-val" in path.name for path in out.iterdir()) > 1
    return contents(out)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_do_not_matter(tmp_path: pathlib.Path, expected: dict[str, bytes], workers: int) -> None:
    build(killable_build.args(str(tmp_path / "out"), workers), FakeEncoder())
    assert contents(tmp_path / "out") == expected


STEPS = [
    (pathlib.Path, "replace"),
    (pathlib.Path, "rename"),
    (pathlib.Path, "unlink"),
    (shutil, "rmtree"),
    (shutil, "move"),
]


def build_until(out: pathlib.Path, step: int) -> bool:
    """Builds until files have been renamed or removed `step` times; says whether the build was killed."""
    count = 0

    def killing(function, after: bool):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == step and not after:
                raise Killed
            result = function(*args, **kwargs)
            if count == step:
                raise Killed
            return result

        return call

    with mock.patch.object(build_module, "Pool", InlinePool):
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
        assert out.exists() != killed or not (tmp_path / f"out-{step}.partial").exists()
        if killed:
            build_until(out, step + 7)  # a second time, somewhere else
            with mock.patch.object(build_module, "Pool", InlinePool):
                build(killable_build.args(str(out)), FakeEncoder())
        assert contents(out) == expected, step
        shutil.rmtree(out)
        assert list(tmp_path.iterdir()) == []
        if not killed:
            break
    assert step > 60


def test_killed_with_signal_9(tmp_path: pathlib.Path, expected: dict[str, bytes]) -> None:
    """The real thing, at places spread over the build; workers are not killed and must not do harm."""
    out, waits = tmp_path / "out", tmp_path / "out.waits"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for workers, chunks in ((2, 0), (3, 4), (1, 9)):
        command = [sys.executable, "-m", "killable_build", str(out), str(workers), str(chunks)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        wait_until(waits.exists, process)
        process.kill()
        process.wait()
        waits.unlink()
    build(killable_build.args(str(out), workers=2), FakeEncoder())
    assert contents(out) == expected


def test_outcomes_that_were_lost_are_made_again(tmp_path: pathlib.Path, expected: dict[str, bytes]) -> None:
    """Half-written or missing arrays, as after a power cut."""
    out = tmp_path / "out"
    assert build_until(out, 12)
    arrays = sorted(tmp_path.glob("out.partial/part-*/staged/*.bin"))
    arrays[-1].write_bytes(arrays[-1].read_bytes()[:-5])
    arrays[-2].unlink()
    build(killable_build.args(str(out)), FakeEncoder())
    assert contents(out) == expected


def test_other_arguments_do_not_go_on(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"
    assert build_until(out, 24)
    with pytest.raises(UserError, match="unfinished build with limit 30; finish it with the same"):
        build(build_module.BuildArgs("noisy", str(out)), FakeEncoder())
    with pytest.raises(UserError, match="from a build with another --shard"):
        build(killable_build.args(str(out), shard=(0, 2)), FakeEncoder())
    shutil.rmtree(tmp_path / "out.partial")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "precious").touch()
    with pytest.raises(UserError, match="is in the way"):
        build(killable_build.args(str(out)), FakeEncoder())


def test_two_builds_at_once(tmp_path: pathlib.Path) -> None:
    out = tmp_path / "out"

    def second(*_) -> None:
        with pytest.raises(UserError, match="another build is writing"):
            build(killable_build.args(str(out)), FakeEncoder())

    with (
        mock.patch.object(build_module, "Pool", InlinePool),
        mock.patch.object(build_module.jobs, "forget_inputs", second),
    ):
        build(killable_build.args(str(out)), FakeEncoder())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_machines_share_the_work(tmp_path: pathlib.Path, expected: dict[str, bytes], order: tuple[int, ...]) -> None:
    """The same examples in the same order, whatever the number of machines; only the shards' borders differ."""
    out = tmp_path / "out"
    with mock.patch.object(build_module, "Pool", InlinePool):
        for i in order[:2]:
            assert build(killable_build.args(str(out), shard=(i, 3)), FakeEncoder()) is None
            assert not out.exists()
        assert build(killable_build.args(str(out), shard=(order[0], 3)), FakeEncoder()) is None  # again: nothing to do
        assert build(killable_build.args(str(out), shard=(order[2], 3)), FakeEncoder()) is not None
    found = contents(out)
    for name in ("index-train.npz", "index-val.npz", "ledger.csv", "features.json"):
        assert found[name] == expected[name], name
    whole = tmp_path / "whole"
    whole.mkdir()
    for name, data in expected.items():
        (whole / name).write_bytes(data)
    one, many = Dataset(whole), Dataset(out)
    for split in one.splits:
        for i in range(one.size(split)):
            assert one.read_clip(split, i).video_TYXC.tobytes() == many.read_clip(split, i).video_TYXC.tobytes()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_merging_can_be_done_apart(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    with mock.patch.object(build_module, "Pool", InlinePool):
        build(killable_build.args(str(out), shard=(0, 2)), FakeEncoder())
        assert build(killable_build.args(str(out), shard=(0, 2), merge=True), FakeEncoder()) is None
        assert "still missing: 1" in capsys.readouterr().out
        with mock.patch.object(build_module, "_merge", side_effect=Killed), pytest.raises(Killed):
            build(killable_build.args(str(out), shard=(1, 2)), FakeEncoder())
        assert build(killable_build.args(str(out), shard=(0, 2), merge=True), FakeEncoder()) is not None
    assert json.loads((out / "vdit.json").read_text())["splits"]["train"]["examples"] == Dataset(out).size("train")


def test_share_covers_every_job_once() -> None:
    groups = [tuple(jobs.Input(f"{i}", "train", weight=(i * 7919) % 100) for _ in range(1 + i % 3)) for i in range(50)]
    for shards in (1, 2, 3, 8, 64):
        ranges = [jobs.share(groups, i, shards) for i in range(shards)]
        assert [number for each in ranges for number in each] == list(range(50))
