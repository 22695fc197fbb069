"""Inputs and outputs behind URLs, on file systems that live in this process's memory."""

import dataclasses
import pathlib
import sys
from unittest import mock

import fsspec
import numpy as np
import pytest
from fake_source import FakeEncoder
from inline_engine import InlineEngine, inline
from make_files import quadrants, write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.jobs import jobs
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError
from vdit.io.storage import lock, remote


@pytest.fixture
def bucket(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """An empty memory:// file system; the cache is a folder of the test."""
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(lock, "SETTLE", 0.01)
    system = fsspec.filesystem("memory")
    system.store.clear()
    system.pseudo_dirs[:] = [""]
    with inline():  # other processes have a memory of their own
        yield system
    system.store.clear()


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    root = tmp_path / "tree"
    root.mkdir()
    for i in range(6):
        write_video(root / f"{i}.mp4", [quadrants(24, 32, i + t) for t in range(5)])
    Image.fromarray(quadrants(24, 32)).save(root / "a.png")
    (root / "captions.csv").write_text("file,caption\n0.mp4,zero\na.png,a picture\n")
    return root


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_from_a_bucket_to_a_bucket(bucket, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """The same bytes as from folder to folder; nothing is left over in the bucket or on this machine."""
    options = Options(val=0.3)
    build(BuildArgs(str(tree), str(tmp_path / "local"), options), FakeEncoder())
    bucket.put(str(tree), "/clips", recursive=True)
    build(BuildArgs("memory://clips", "memory://data/set", options), FakeEncoder())
    found = {name.rsplit("/", 1)[-1]: bucket.cat(name) for name in bucket.find("/data")}
    assert found == contents(tmp_path / "local")
    assert {name.split("/")[1] for name in bucket.find("/")} == {"clips", "data"}
    assert not list((tmp_path / "cache" / "builds").iterdir())


def test_other_processes_read_and_write_urls(tree: pathlib.Path, tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(lock, "SETTLE", 0.01)
    args = BuildArgs(str(tree), str(tmp_path / "local"))
    build(args, FakeEncoder())
    build(dataclasses.replace(args, source=f"file://{tree}", out=f"file://{tmp_path}/bucket/set"), FakeEncoder())
    assert contents(tmp_path / "bucket" / "set") == contents(tmp_path / "local")
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == ["set"]
    assert not list((tmp_path / "cache" / "builds").iterdir())


def test_reading_stages_shards_on_this_machine(bucket, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    build(BuildArgs(str(tree), str(tmp_path / "local")), FakeEncoder())
    build(BuildArgs(str(tree), "memory://data"), FakeEncoder())
    here, there = Dataset(tmp_path / "local"), Dataset("memory://data")
    for i in range(here.size("train")):
        np.testing.assert_array_equal(here.read_clip("train", i).video_TYXC, there.read_clip("train", i).video_TYXC)
        assert here.example("train", i).keys() == there.example("train", i).keys()
    np.testing.assert_array_equal(here.index("train").id, there.index("train").id)
    bucket.store.clear()  # what was staged is still there
    assert there.read_clip("train", 0).video_TYXC.shape == (5, 24, 32, 3)


def test_a_build_into_a_bucket_resumes_on_another_machine(
    bucket, tree: pathlib.Path, tmp_path: pathlib.Path, monkeypatch
) -> None:
    monkeypatch.setattr(jobs, "JOB_INPUTS", 2)
    args = BuildArgs(str(tree), "memory://data")
    build(dataclasses.replace(args, out=str(tmp_path / "local")), FakeEncoder())
    with (
        mock.patch("data_pipelines.building.builder.publish", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        build(args, FakeEncoder())
    assert bucket.exists("/data.partial") and not bucket.exists("/data/vdit.json")
    with pytest.raises(UserError, match="is an unfinished build with limit 0"):
        build(dataclasses.replace(args, options=Options(limit=3)), FakeEncoder())
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "a new machine"))
    bucket.rm("/data/" + next(name for name in remote.list_names("memory://data") if "00001-of" in name))
    done: list[int] = []
    run = InlineEngine.run

    def counted(self, recipe, todo):
        for job in run(self, recipe, todo):
            done.append(job.number)
            yield job

    with mock.patch.object(InlineEngine, "run", counted):
        assert build(args, FakeEncoder()) is not None
    assert done == [1]  # the one whose shard was lost
    found = {name.rsplit("/", 1)[-1]: bucket.cat(name) for name in bucket.find("/data")}
    assert found == contents(tmp_path / "local")
    assert not bucket.exists("/data.partial")
    assert build(args, FakeEncoder()) is None  # it is there


def test_nothing_accepted_leaves_other_files_of_the_bucket(bucket, tmp_path: pathlib.Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "a.png").write_bytes(b"no picture")
    bucket.pipe("/data.txt", b"precious")
    with pytest.raises(UserError, match="no clip was accepted"):
        build(BuildArgs(str(tmp_path / "tree"), "memory://data"), FakeEncoder())
    assert bucket.find("/") == ["/data.txt"]


def test_transfers_are_tried_again(bucket, tree: pathlib.Path) -> None:
    bucket.put(str(tree), "/clips", recursive=True)
    failures = {"get_file": 2, "put_file": 2}

    def flaky(name):
        real = getattr(type(bucket), name)

        def call(self, *args, **kwargs):
            if failures[name]:
                failures[name] -= 1
                raise ConnectionError("the network is down")
            return real(self, *args, **kwargs)

        return mock.patch.object(type(bucket), name, call)

    with flaky("get_file"), flaky("put_file"):
        build(BuildArgs("memory://clips", "memory://data"), FakeEncoder())
        assert failures == {"get_file": 0, "put_file": 0}
        failures["get_file"] = 1000
        with pytest.raises(UserError, match="cannot be read .the network is down.; start again"):
            build(BuildArgs("memory://clips", "memory://other"), FakeEncoder())


@pytest.mark.parametrize(("url", "package"), [("gs://bucket/clips", "gcsfs"), ("s3://bucket/clips", "s3fs")])
def test_what_is_needed_for_a_bucket_is_said(
    url: str, package: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as where the extra is not installed
    with pytest.raises(UserError, match=f"cannot be opened: .*{package}"):
        build(BuildArgs(url, str(tmp_path / "out")), FakeEncoder())


def test_an_empty_bucket(bucket, tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="gives nothing to read: it is empty or does not exist"):
        build(BuildArgs("memory://nowhere", str(tmp_path / "out")), FakeEncoder())
