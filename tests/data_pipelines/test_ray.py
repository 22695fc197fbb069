"""The same data set from a Ray cluster, also if one of its machines dies."""

import os
import pathlib
import signal
import socket
import sys
import threading
import time
from unittest import mock

import fake_source
import pytest
import ray
from fake_source import FakeEncoder
from inline_engine import inline
from ray.cluster_utils import Cluster
from waiting import wait_until

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.engines import ray_engine
from data_pipelines.building.jobs import fetching, jobs
from data_pipelines.building.jobs.jobs import Recipe, plan_jobs
from data_pipelines.media.clip import Input, Options
from data_pipelines.sources.registry import SOURCES
from vdit.errors import UserError
from vdit.patches import Patch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources for tests, which Ray's processes find too, and jobs of three inputs."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(jobs, "JOB_INPUTS", 3)
    for name, source in fake_source.sources().items():
        monkeypatch.setitem(SOURCES, name, source)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def expected(tmp_path: pathlib.Path, options: Options) -> dict[str, bytes]:
    with inline():
        build(BuildArgs("noisy", str(tmp_path / "expected"), options))
    return contents(tmp_path / "expected")


def test_a_ray_of_this_machine_gives_the_same_bytes(tmp_path: pathlib.Path, monkeypatch) -> None:
    """Captions are encoded by an actor; what the user did wrong comes back as one line."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options = Options(limit=8)
    build(BuildArgs("noisy", str(tmp_path / "out"), options, engine="ray"), FakeEncoder())
    assert not ray.is_initialized()
    assert contents(tmp_path / "out") == expected(tmp_path, options)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "auto"])
def test_a_cluster_that_does_not_answer(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    for name, nothing in (("find_gcs_addresses", set()), ("find_bootstrap_address", None)):  # of others on this machine
        monkeypatch.setattr(ray._private.services, name, mock.Mock(return_value=nothing))
    args = BuildArgs("noisy", str(tmp_path / "out"), Options(limit=8), engine="ray", ray_address=address)
    with pytest.raises(
        UserError, match=f"--ray_address={address}: no cluster that this Ray {ray.__version__} can join"
    ):
        build(args, FakeEncoder())


@pytest.mark.parametrize(("answer", "words"), [(b"HTTP/1.0 400 Bad\r\n\r\n", "is no Ray"), (b"", "timed out")])
def test_a_port_that_is_no_cluster(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, answer: bytes, words: str
) -> None:
    monkeypatch.setattr(ray_engine, "ANSWER", 2.0 if answer else 0.2)
    heard: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=lambda: heard.append(server.accept()[0]) or heard[0].sendall(answer))
        thread.start()
        address = "{}:{}".format(*server.getsockname())
        args = BuildArgs("noisy", str(tmp_path / "out"), Options(limit=8), engine="ray", ray_address=address)
        with pytest.raises(UserError, match=f"--ray_address={address}: no cluster .*{words}"):
            build(args, FakeEncoder())
        thread.join()
        heard[0].close()


def test_a_cluster_of_another_version(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray compares versions when it joins; what it says has several lines."""
    from ray._private.utils import check_version_info

    def join(**options) -> None:
        check_version_info({"ray_version": "2.9.0", "python_version": "3.9.1"}, "This process")

    monkeypatch.setattr(ray, "init", join)
    args = BuildArgs("noisy", str(tmp_path / "out"), Options(limit=8), engine="ray", ray_address="auto")
    with pytest.raises(UserError, match=f"this Ray {ray.__version__} can join .*Version mismatch.*2.9.0") as caught:
        build(args, FakeEncoder())
    assert "\n" not in str(caught.value)


def test_a_cluster_with_another_token(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own errors are of no class of Python's."""

    def join(**options) -> None:
        raise ray.exceptions.AuthenticationError("Token mismatch")

    monkeypatch.setattr(ray, "init", join)
    args = BuildArgs("noisy", str(tmp_path / "out"), Options(limit=8), engine="ray", ray_address="auto")
    with pytest.raises(UserError, match=f"this Ray {ray.__version__} can join .*Token mismatch"):
        build(args, FakeEncoder())


def test_machines_must_see_the_files(tmp_path: pathlib.Path) -> None:
    (job,) = plan_jobs([Input("a", "train", str(tmp_path / "a.mp4"))], "clips")
    recipe = Recipe(fake_source.some_clips, Options(), Patch(), 1, False, str(tmp_path), str(tmp_path))
    with pytest.raises(UserError, match=f"does not have {tmp_path}/a.mp4; on a cluster --source and --out are URLs"):
        fetching.check_shared(recipe, job)
    (tmp_path / "a.mp4").touch()
    fetching.check_shared(recipe, job)


class WaitingEncoder(FakeEncoder):
    """Encodes the captions of some jobs; the others only after the file is there."""

    def __init__(self, file: pathlib.Path, jobs: int) -> None:
        super().__init__()
        self.file, self.left = file, jobs

    def encode(self, texts):
        self.left -= 1
        while self.left < 0 and not self.file.exists():
            time.sleep(0.01)
        return super().encode(texts)


@pytest.mark.nightly
def test_a_machine_that_is_killed_costs_nothing(tmp_path: pathlib.Path) -> None:
    """Two nodes beside the head; one of them gets SIGKILL, with all its processes, in the middle."""
    options = Options(limit=90)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        victim, _ = (cluster.add_node(num_cpus=1) for _ in range(2))
        jobs, killed = tmp_path / "out.partial" / "jobs", tmp_path / "killed"

        def kill() -> None:
            wait_until(lambda: len(list(jobs.glob("*.npz"))) >= 4)
            os.kill(victim.all_processes["raylet"][0].process.pid, signal.SIGKILL)
            cluster.remove_node(victim, allow_graceful=False)
            killed.touch()

        thread = threading.Thread(target=kill, daemon=True)
        thread.start()
        ray_engine._check_answers(cluster.address)
        args = BuildArgs("noisy", str(tmp_path / "out"), options, engine="ray", ray_address=cluster.address)
        build(args, WaitingEncoder(killed, 5))
        assert killed.exists()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert contents(tmp_path / "out") == expected(tmp_path, options)
