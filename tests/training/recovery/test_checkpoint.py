import dataclasses
import json
import os
import shutil
import sys
import zlib

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny

from data_pipelines.reading.store import Dataset
from vdit.config import MeshConfig, TrainConfig
from vdit.data import interface_of
from vdit.errors import UserError
from vdit.parallel.mesh import make_mesh, use_mesh
from vdit.training.recovery.checkpoint import FORMAT, Checkpoints, Position, checkpoint_steps
from vdit.training.step import TrainState, abstract_state

CONFIG = tiny.tiny_config()
MESH = MeshConfig()
POSITION = Position(7, 14, 1000, 30, 20, 12345.0, [[3, 5]])


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """A failed restore changes these for the rest of the process, which is about to end."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def abstract(mesh: MeshConfig = MESH, config=CONFIG) -> TrainState:
    """Shapes and shardings of the state on the first two devices."""
    devices = make_mesh(mesh, jax.devices()[:2])
    with use_mesh(devices):
        return abstract_state(config, interface_of(Dataset(tiny.dataset()).meta), devices)[1]


def random_state(seed: int = 0, mesh: MeshConfig = MESH) -> TrainState:
    rng = np.random.default_rng(seed)
    fill = lambda x: jax.device_put(rng.integers(0, 2**24, x.shape).astype(x.dtype), x.sharding)  # noqa: E731
    return jax.tree.map(fill, abstract(mesh))


def assert_equal(a: TrainState, b: TrainState) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """(workdir with a checkpoint of step 7, what is in it)."""
    workdir, state = tmp_path_factory.mktemp("saved"), random_state()
    with Checkpoints(workdir, CONFIG.train) as checkpoints:
        checkpoints.save(state, POSITION)
    return workdir, state


def restore(workdir, like: TrainState, step: int = 7) -> tuple[TrainState, Position]:
    with Checkpoints(workdir, CONFIG.train, create=False) as checkpoints:
        return checkpoints.restore(like, step)


def test_state_and_position_come_back(saved):
    workdir, state = saved
    found, position = restore(workdir, abstract())
    assert_equal(found, state)
    assert position == POSITION
    assert all(x.sharding == y.sharding for x, y in zip(*map(jax.tree.leaves, (found, state)), strict=True))


def test_another_mesh_takes_the_same_state(saved):
    workdir, state = saved
    like = abstract(MeshConfig(replica=1, fsdp=2))
    found, _ = restore(workdir, like)
    assert_equal(found, state)
    assert found.params["out"].sharding == like.params["out"].sharding != state.params["out"].sharding


def test_a_save_is_of_its_moment(tmp_path):
    """The next step reuses the memory of the state while it is being written."""
    state, advance = random_state(), jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    expected = jax.tree.map(lambda x: np.array(x), state)
    with Checkpoints(tmp_path, CONFIG.train) as checkpoints:
        checkpoints.save(state, POSITION)
        for _ in range(3):
            state = advance(state)
    assert_equal(restore(tmp_path, abstract())[0], expected)


def test_newest_and_chosen_steps_are_kept(tmp_path):
    state = random_state()
    with Checkpoints(tmp_path, TrainConfig(keep=2, keep_steps=(3,))) as checkpoints:
        assert checkpoints.latest is None
        for step in (1, 3, 4, 5, 6):
            checkpoints.save(state, dataclasses.replace(POSITION, step=step))
        checkpoints.save(state, dataclasses.replace(POSITION, step=6))  # already there
        assert checkpoints.latest == 6
    assert checkpoint_steps(tmp_path) == [3, 5, 6]


def test_looking_creates_nothing(tmp_path):
    with Checkpoints(tmp_path / "run", CONFIG.train, create=False) as checkpoints:
        assert checkpoints.latest is None
        with pytest.raises(UserError, match="no checkpoint of step 3 in .*; there are none"):
            checkpoints.restore(abstract(), 3)
    assert checkpoint_steps(tmp_path / "run") == []
    assert not (tmp_path / "run").exists()


def test_a_missing_step_names_those_there_are(saved):
    with pytest.raises(UserError, match="no checkpoint of step 8 in .*; there are 7"):
        restore(saved[0], abstract(), 8)


def test_without_optimizer_state_nothing_is_restored(tmp_path):
    """A resume that silently began with a fresh optimizer would spoil a run unnoticed."""
    names = jax.tree_util.tree_leaves_with_path(random_state())
    named = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in names}
    kept = {name: leaf for name, leaf in named.items() if "/nu/" not in name}
    assert 0 < len(kept) < len(named)
    manager = ocp.CheckpointManager(tmp_path / "checkpoints")
    position = ocp.args.JsonSave({"format": FORMAT, **dataclasses.asdict(POSITION)})
    manager.save(7, args=ocp.args.Composite(state=ocp.args.StandardSave(kept), position=position))
    manager.wait_until_finished()
    manager.close()
    with pytest.raises(UserError, match="checkpoints/7 cannot be restored.*optimizer/1/nu"):
        restore(tmp_path, abstract())


def test_another_model_is_refused(saved):
    like = abstract(config=tiny.change(CONFIG, model={"width": 32}))
    with pytest.raises(UserError, match="checkpoints/7 cannot be restored.*of another model"):
        restore(saved[0], like)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": FORMAT + 1}, f"is not of format {FORMAT}"),
        ({"format": None}, f"is not of format {FORMAT}"),
        ({"rows": 3}, "its position holds .*rows"),
        ({"step": None}, "its position holds"),
    ],
)
def test_another_format_is_refused(saved, tmp_path, change, message):
    workdir = shutil.copytree(saved[0], tmp_path / "run")
    path = workdir / "checkpoints" / "7" / "position" / "metadata"
    values = {**json.loads(path.read_text()), **change}
    values = {name: value for name, value in values.items() if value is not None and name != "crc"}
    crc = zlib.crc32(json.dumps(values, sort_keys=True).encode())
    path.write_text(json.dumps({**values, "crc": crc}))
    with pytest.raises(UserError, match=f"checkpoints/7 .*{message}"):
        restore(workdir, abstract())


def test_a_damaged_file_is_named_or_not_needed(saved, tmp_path, capfd):
    """Every file in turn is cut in half, emptied or removed; a wrong state never comes back."""
    workdir, state = saved
    step = workdir / "checkpoints" / "7"
    files = sorted(path.relative_to(step) for path in step.rglob("*") if path.is_file())
    largest = max(files, key=lambda file: (step / file).stat().st_size)
    refused = set()
    for number, file in enumerate(files):
        copy = shutil.copytree(workdir, tmp_path / str(number))
        path = copy / "checkpoints" / "7" / file
        damage = ("half", "empty", "gone")[number % 3]
        os.truncate(path, path.stat().st_size // 2 if damage == "half" else 0)
        if damage == "gone":
            path.unlink()
        try:
            found, position = restore(copy, abstract())
        except UserError as error:
            assert f"checkpoint {copy}/checkpoints/7 cannot be restored" in str(error)
            assert "\n" not in str(error) and len(str(error)) < 600
            refused.add(file)
        else:
            assert_equal(found, state)
            assert position == POSITION
    assert len(refused) >= 4 and largest in refused
    assert capfd.readouterr().err.count("Traceback") == 0  # of parallel reads
