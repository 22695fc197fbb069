"""A run that stops on some devices goes on with others: the same rows, the same losses, and its optimiser state."""

import dataclasses
import functools
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from processes import run_together

import vdit.train
from vdit.config import MeshConfig
from vdit.parallel.mesh import make_mesh
from vdit.training import loop
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import Checkpoints

TOLERANCE = 2e-6
BFLOAT16_TOLERANCE = 3e-4
"""Sums in another order are rounded to other bfloat16 numbers."""
STOP, STEPS = 3, 7


def config(mesh: MeshConfig, steps: int = STEPS, dtype: str = "float32"):
    base = tiny.tiny_config(steps=steps, rows=8, checkpoint_every=STOP, keep=9, evaluate_every=-1)
    return dataclasses.replace(tiny.change(base, model={"dtype": dtype}), mesh=mesh)


def train(workdir, devices: int, mesh: MeshConfig, steps: int = STEPS, dtype: str = "float32") -> None:
    chosen = lambda config: make_mesh(config, jax.devices()[:devices])  # noqa: E731
    with mock.patch.object(loop, "make_mesh", chosen):
        vdit.train.train(config(mesh, steps, dtype), workdir)


def losses(workdir) -> list[float]:
    return [row["loss"] for row in read_metrics(workdir)]


def account(workdir) -> list[tuple]:
    return [
        tuple(row[name] for name in ("step", "patches", "text", "examples", "flops")) for row in read_metrics(workdir)
    ]


@functools.cache
def undisturbed():
    """A run on 8 devices, all its checkpoints kept."""
    workdir = tiny.folder() / "elastic"
    train(workdir, 8, MeshConfig(replica=2, fsdp=4))
    return workdir


def stopped(workdir):
    """The same, stopped after `STOP` steps."""
    shutil.copytree(undisturbed(), workdir)
    for step in (STOP * 2, STEPS):
        shutil.rmtree(workdir / "checkpoints" / str(step))
    return workdir


def check(workdir) -> None:
    assert account(workdir) == account(undisturbed())
    np.testing.assert_allclose(losses(workdir), losses(undisturbed()), rtol=TOLERANCE)


OTHERS = [
    (4, MeshConfig(replica=2, fsdp=2)),
    pytest.param(2, MeshConfig(replica=1, tensor=2), marks=pytest.mark.nightly),
    pytest.param(1, MeshConfig(), marks=pytest.mark.nightly),
    pytest.param(8, MeshConfig(replica=2, context=4), marks=pytest.mark.nightly),
    pytest.param(8, MeshConfig(replica=2, fsdp=2, tensor=2), marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("devices", "mesh"), OTHERS)
def test_it_resumes_on_other_devices(tmp_path, devices, mesh):
    train(stopped(tmp_path / "run"), devices, mesh)
    assert losses(tmp_path / "run")[:STOP] == losses(undisturbed())[:STOP]
    check(tmp_path / "run")


@pytest.mark.parametrize("lost", ["mu", "nu", "count"])
def test_losing_the_optimiser_state_would_be_seen(tmp_path, lost):
    """The comparison above fails if any part of the state of Adam comes back as it is at the start."""
    restore = Checkpoints.restore

    def lossy(self, like, step):
        state, position = restore(self, like, step)
        clear = lambda path, x: jax.device_put(np.zeros(x.shape, x.dtype), x.sharding) if lost in str(path) else x  # noqa: E731
        optimizer = jax.tree_util.tree_map_with_path(clear, state.optimizer)
        return dataclasses.replace(state, optimizer=optimizer), position

    with mock.patch.object(Checkpoints, "restore", lossy):
        train(stopped(tmp_path / "run"), 4, MeshConfig(replica=2, fsdp=2))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check(tmp_path / "run")


@pytest.mark.nightly
@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (1, 2), (4, 2), (2, 4)])
def test_two_processes_of_four_devices_become_others(tmp_path, processes, devices):
    file = tiny.write_config(tmp_path / "first.py", config(MeshConfig(replica=-1, fsdp=2), steps=STOP))
    run_together(file, tmp_path / "run", tmp_path, 2, 4)
    file = tiny.write_config(tmp_path / "second.py", config(MeshConfig(replica=-1, fsdp=2)))
    run_together(file, tmp_path / "run", tmp_path, processes, devices)
    check(tmp_path / "run")


@pytest.mark.nightly
def test_in_bfloat16_losses_differ_by_more(tmp_path):
    mesh = MeshConfig(replica=2, fsdp=4)
    train(tmp_path / "whole", 8, mesh, dtype="bfloat16")
    shutil.copytree(tmp_path / "whole", tmp_path / "run")
    for step in (STOP * 2, STEPS):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / str(step))
    train(tmp_path / "run", 4, MeshConfig(replica=2, fsdp=2), dtype="bfloat16")
    ours, theirs = np.array(losses(tmp_path / "run")), np.array(losses(tmp_path / "whole"))
    assert TOLERANCE < (abs(ours / theirs - 1)).max() < BFLOAT16_TOLERANCE
