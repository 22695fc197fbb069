"""Weights written by vdit.export, and runs that start from given weights."""

import dataclasses
import json

import cli
import jax
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file
from test_sample_cli import Words

from vdit.errors import UserError
from vdit.generation.restore import load_run
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.training import export as exports
from vdit.training.initial import named
from vdit.training.record.workdir import read_config


@pytest.fixture
def run(capfd):
    return cli.runner(capfd)


def export(folder):
    with tiny.two_devices():
        exports.write_weights(load_run(tiny.long_run()[1]), folder)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return export(tmp_path_factory.mktemp("export") / "weights")


def arrays(params) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in named(params).items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


def start(tmp_path, init_from, **changes):
    """A run of no step that starts from weights."""
    config = tiny.change(tiny.tiny_config(), **changes)
    return tiny.restored(tmp_path / "new", dataclasses.replace(config, init_from=str(init_from)))


def test_the_command_writes_the_average_or_the_weights(run, tmp_path, exported):
    config, workdir = tiny.long_run()
    state = tiny.restored(workdir, config).state
    assert_same(load_file(exported / "model.safetensors"), arrays(state.ema))
    done = run("vdit.export", f"--workdir={workdir}", f"--out={tmp_path / 'raw'}", "--raw")
    assert done.status == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'raw'}: ") and "of step 60" in done.out
    done = run("vdit.export", f"--workdir={workdir}", f"--out={tmp_path / 'half'}", "--half")
    assert done.status == 0, done.err
    halved = load_file(tmp_path / "half" / "model.safetensors")
    assert_same(halved, {name: array.astype(np.float16) for name, array in arrays(state.ema).items()})
    assert all(array.dtype == np.float16 for array in halved.values())
    loaded = arrays(start(tmp_path, tmp_path / "half").state.params)
    assert_same(loaded, {name: array.astype(np.float32) for name, array in halved.items()})
    assert_same(load_file(tmp_path / "raw" / "model.safetensors"), arrays(state.params))
    assert run("vdit.export", f"--workdir={workdir}", f"--out={tmp_path / 'raw'}").error.endswith(
        "exists; give a new folder"
    )


def test_samples_of_an_export_are_those_of_the_run(run, tmp_path, exported, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    files = []
    for name, workdir in (("run", tiny.long_run()[1]), ("export", exported)):
        out = tmp_path / f"{name}.mp4"
        flags = ("--prompt=a wave", "--size=24x16", "--frames=5", "--steps=2", f"--out={out}", f"--workdir={workdir}")
        done = run("vdit.sample", *flags)
        assert done.status == 0, done.err
        files.append(out.with_suffix(".png").read_bytes())
    assert files[0] == files[1]


def test_a_run_starts_from_an_export_a_file_or_a_workdir(tmp_path, exported):
    config, workdir = tiny.long_run()
    expected = arrays(tiny.restored(workdir, config).state.ema)
    for source in (exported, exported / "model.safetensors", workdir):
        opened = start(tmp_path, source)
        assert_same(arrays(opened.state.params), expected)
        assert_same(arrays(opened.state.ema), expected)
        assert opened.position.step == opened.state.step == 0
        moments = jax.tree.leaves(opened.state.optimizer)
        assert not any(np.asarray(leaf).any() for leaf in moments)


def test_a_workdir_is_named_from_the_folder_one_stands_in(tmp_path, monkeypatch):
    config, workdir = tiny.long_run()
    expected = arrays(tiny.restored(workdir, config).state.ema)
    monkeypatch.chdir(workdir.parent)
    assert_same(arrays(start(tmp_path, workdir.name).state.params), expected)


def test_weights_in_several_files(tmp_path, exported, monkeypatch):
    monkeypatch.setattr(exports, "FILE_BYTES", 40_000)
    folder = export(tmp_path / "parts")
    assert len(list(folder.glob("*.safetensors"))) > 2
    assert_same(arrays(start(tmp_path, folder).state.params), load_file(exported / "model.safetensors"))


def test_training_from_weights_is_another_run(run, tmp_path, exported):
    config = tiny.write_config(tmp_path / "config.py", tiny.tiny_config(steps=1, evaluate_every=-1))
    flags = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}")
    done = run(*flags, f"--config.init_from={exported}")
    assert done.status == 0, done.err
    assert read_config(tmp_path / "run").init_from == str(exported)
    assert f"holds a run with init_from={exported}, not " in run(*flags).error
    assert "is an export; take another --workdir" in run(*flags[:2], f"--workdir={exported}").error


@pytest.mark.parametrize("source", ["export", "workdir"])
def test_weights_of_another_model_are_refused_by_name(tmp_path, exported, source):
    where = exported if source == "export" else tiny.long_run()[1]
    with pytest.raises(UserError, match=r"tensor (ema/)?blocks.* is \[2, .*, the model's is \[3, ") as error:
        start(tmp_path, where, model={"depth": 3})
    assert "\n" not in str(error.value)


def test_missing_and_unexpected_tensors_are_refused_by_name(tmp_path, exported):
    tensors = load_file(exported / "model.safetensors")
    out = tensors.pop("out")
    save_file(tensors, tmp_path / "few.safetensors")
    with pytest.raises(UserError, match="few.safetensors has no tensor out "):
        start(tmp_path, tmp_path / "few.safetensors")
    save_file({**tensors, "out": out, "more": out}, tmp_path / "many.safetensors")
    with pytest.raises(UserError, match="holds a tensor more .* that the model does not have"):
        start(tmp_path, tmp_path / "many.safetensors")
    with pytest.raises(UserError, match="nowhere is not a folder of weights"):
        start(tmp_path, tmp_path / "nowhere")


def test_an_export_says_what_it_is(exported):
    about = json.loads((exported / "export.json").read_text())
    assert (about["weights"], about["step"]) == ("ema", 60)
    assert json.loads((exported / "dataset.json").read_text())["text_encoder"]["width"] == tiny.TEXT_WIDTH
