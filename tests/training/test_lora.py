"""Runs of adapters: what is trained and saved, resuming, exports, samples, and what they refuse."""

import dataclasses
import functools
import json
import shutil

import cli
import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file
from test_sample_cli import Words

from vdit.errors import UserError
from vdit.generation.restore import load_run
from vdit.lora_config import LoraConfig
from vdit.models.lora_files import FILE
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.parallel.mesh import make_mesh
from vdit.training import export as exports
from vdit.training import loop
from vdit.training.initial import named
from vdit.training.record.identity import run_id
from vdit.training.record.metrics import read_metrics
from vdit.training.record.workdir import read_config
from vdit.training.recovery.checkpoint import checkpoint_steps

LORA = LoraConfig(rank=2, alpha=4.0, dropout=0.1, base="float32")


@functools.cache
def base():
    """(config, workdir) of the run whose weights the adapters stand at."""
    return tiny.long_run()


def config_of(steps: int = 4, **changes):
    config = tiny.tiny_config(steps=steps, evaluate_every=2, keep=9)
    lora = dataclasses.replace(LORA, **changes)
    return dataclasses.replace(config, init_from=str(base()[1]), lora=lora)


@functools.cache
def undisturbed():
    """(config, folder of copies of the workdir made after every row, result)."""
    return tiny.recorded(config_of(), tiny.folder() / "lora")


def workdir():
    return undisturbed()[1] / "run"


def arrays(params):
    return {name: np.asarray(leaf) for name, leaf in named(params).items()}


def test_only_adapters_are_trained_saved_and_averaged():
    config, _, (saved, position, rows) = undisturbed()
    run = tiny.restored(workdir(), config)
    names = {f"blocks.{name}.{part}" for name in ("qkv", "out", "up", "down") for part in "ab"}
    assert named(run.state.params).keys() == named(run.state.ema).keys() == names
    assert all(array.any() for array in arrays(run.state.params).values())
    whole = arrays(tiny.restored(*base()[::-1]).state.ema)
    for name, array in arrays(run.state.frozen).items():
        np.testing.assert_array_equal(array, whole[name.removesuffix(".base")])
    stored = sum(
        file.stat().st_size for file in (workdir() / "checkpoints" / "4" / "state").rglob("*") if file.is_file()
    )
    assert stored < 8 * sum(array.nbytes for array in arrays(run.state.params).values()) + 60_000
    assert position["base"] and run.parameters == tiny.restored(*base()[::-1]).parameters
    assert rows[-1]["validation"]["loss"] != read_metrics(base()[1])[-1]["validation"]["loss"]


@pytest.mark.parametrize("rows", [3, 5])
def test_killed_and_resumed_it_is_the_same(tmp_path, rows):
    config, copies, expected = undisturbed()
    killed = shutil.copytree(copies / str(rows), tmp_path / "run")
    assert [0, *checkpoint_steps(killed)][-1] < 4
    tiny.train(config, killed)
    tiny.assert_same_result(killed, expected, config)


def test_it_resumes_on_other_devices(tmp_path, monkeypatch):
    config, copies, _ = undisturbed()
    moved = shutil.copytree(copies / "5", tmp_path / "run")
    assert checkpoint_steps(moved)
    sharded = dataclasses.replace(config, mesh=dataclasses.replace(config.mesh, replica=1, fsdp=2, tensor=2))
    tiny_make = lambda mesh: make_mesh(mesh, jax.devices()[:4])  # noqa: E731
    monkeypatch.setattr(loop, "make_mesh", tiny_make)
    import vdit.train

    vdit.train.train(sharded, moved)
    losses = lambda path: [row["loss"] for row in read_metrics(path) if "loss" in row]  # noqa: E731
    np.testing.assert_allclose(losses(moved), losses(workdir()), rtol=5e-6)


def test_it_is_another_run_than_one_of_all_weights():
    config = config_of()
    assert run_id(config) != run_id(dataclasses.replace(config, lora=None)) != run_id(tiny.tiny_config(steps=4))
    assert run_id(config) != run_id(config_of(rank=3))
    assert read_config(workdir()).lora == LORA
    for other, named_field in (
        (config_of(rank=3), "lora.rank=2, not 3"),
        (config_of(base="int8"), "lora.base=float32"),
    ):
        with pytest.raises(UserError, match=f"holds a run with {named_field}"):
            tiny.train(other, workdir())


def test_other_weights_at_the_same_place_are_noticed(tmp_path):
    shutil.copytree(base()[1], tmp_path / "base")
    config = dataclasses.replace(config_of(steps=1), init_from=str(tmp_path / "base"))
    config = tiny.change(config, train={"evaluate_every": -1})
    tiny.train(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "base" / "checkpoints" / "60")
    with pytest.raises(UserError, match="holds other weights than when .* began"):
        tiny.train(tiny.change(config, train={"steps": 2}), tmp_path / "run")


def test_adapters_need_weights_to_stand_at(tmp_path):
    with pytest.raises(
        UserError, match="config.lora needs the weights at which adapters stand; give --config.init_from"
    ):
        tiny.train(dataclasses.replace(config_of(), init_from=""), tmp_path)
    with pytest.raises(UserError, match="holds adapters; python -m vdit.export --merge makes weights of them"):
        tiny.train(dataclasses.replace(config_of(), init_from=str(workdir())), tmp_path)


@pytest.fixture
def run(capfd, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    return cli.runner(capfd)


def test_exports_and_samples(run, tmp_path):
    """A run, its merged export, its exported adapters, and these added to the base give the same video."""
    for name, flags in (("adapters", ()), ("merged", ("--merge",))):
        done = run("vdit.export", f"--workdir={workdir()}", f"--out={tmp_path / name}", *flags)
        assert done.status == 0, done.err
    assert read_config(tmp_path / "merged").lora is None
    assert set(load_file(tmp_path / "adapters" / FILE)) > {"transformer.blocks.1.to_q.lora_A.weight"}

    def sample(name: str, workdir, *flags: str) -> np.ndarray:
        out = tmp_path / f"{name}.npz"
        shape = ("--prompt=a wave", "--size=24x16", "--frames=5", "--steps=2")
        done = run("vdit.sample", *shape, f"--out={out}", f"--workdir={workdir}", *flags)
        assert done.status == 0, done.err
        return np.load(out)["video"].astype(int)

    adapters = tmp_path / "adapters"
    expected = sample("run", workdir())
    plain = sample("base", base()[1])
    assert abs(expected - plain).max() > 8
    np.testing.assert_array_equal(sample("merged", tmp_path / "merged"), expected)
    for found in (
        sample("adapters", adapters),
        sample("added", base()[1], f"--lora={adapters / FILE}"),
        sample("twice", base()[1], f"--lora={adapters}:0.25", f"--lora={adapters}:0.75"),
    ):
        assert abs(found - expected).max() <= 1
    about = json.loads((tmp_path / "twice.json").read_text())
    assert about["lora"] == [f"{adapters}:0.25", f"{adapters}:0.75"]
    np.testing.assert_array_equal(sample("none", base()[1], f"--lora={adapters}:0"), plain)


def test_what_cannot_be(run, tmp_path):
    config = tiny.write_config(tmp_path / "config.py", tiny.tiny_config(steps=1))
    flags = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    assert run(*flags, "--config.lora.rank=0").error == (
        "lora.rank=0 must be at least 1; without config.lora all weights are trained"
    )
    assert "lora.matrices: 'attn' matches no matrix" in run(*flags, "--config.lora.matrices=attn").error
    assert "config.lora needs the weights" in run(*flags, "--config.lora.rank=2").error
    muon = run(*flags, "--config.lora.rank=2", "--config.optimizer.method=muon")
    assert muon.error == "AdamW trains the adapters of config.lora; set optimizer.method=adamw"
    out = f"--out={tmp_path / 'x'}"
    assert (
        "has no adapters, its weights are whole" in run("vdit.export", f"--workdir={base()[1]}", out, "--merge").error
    )
    with tiny.two_devices():
        exports.write_weights(load_run(workdir()), tmp_path / "adapters")
    wide = tiny.change(tiny.tiny_config(steps=1, evaluate_every=-1), model={"width": 32, "depth": 3})
    tiny.train(wide, tmp_path / "wide")
    sample = ("vdit.sample", f"--workdir={tmp_path / 'wide'}", "--size=16x16", "--frames=5", f"{out}.npz")
    assert "it is of another model" in run(*sample, f"--lora={tmp_path / 'adapters'}").error
