"""Data sets of latents: what the autoencoder makes of the pixels, who it was, and a refusal of any other."""

from __future__ import annotations

import dataclasses
import json

import fake_source
import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
from fake_source import FakeEncoder

from data_pipelines.building.build_args import BuildArgs, make_args
from data_pipelines.building.builder import build
from data_pipelines.reading.pipeline import make_plan
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.registry import SOURCES
from vdit.autoencoder_config import AutoencoderConfig
from vdit.errors import UserError
from vdit.generation.restore import generator_of, load_run
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import load_autoencoder, save_causal_vae
from vdit.patches import Patch

VAE = AutoencoderConfig(channels=4, width=4, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture(autouse=True)
def fake_sources(monkeypatch):
    for name, source in fake_source.sources().items():
        monkeypatch.setitem(SOURCES, name, source)


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.05, shape) for name, shape in causal_vae.shapes(VAE).items()}
    save_causal_vae(folder, weights, VAE, np.zeros(4), np.ones(4))
    return folder


@pytest.fixture(scope="module")
def latents(vae, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, source in fake_source.sources().items():
            patch.setitem(SOURCES, name, source)
        out = tmp_path_factory.mktemp("data")
        build(BuildArgs("some", str(out / "pixels")), FakeEncoder())
        arguments = BuildArgs("some", str(out / "latents"), autoencoder=f"causal_vae:{vae}", strides=(4, 8, 8))
        build(arguments, FakeEncoder())
    return Dataset(out / "pixels"), Dataset(out / "latents"), arguments


def test_latents_are_those_of_the_pixels(vae, latents):
    pixels, dataset, _ = latents
    autoencoder = load_autoencoder(f"causal_vae:{vae}")
    assert dataset.patch == Patch(1, 1, 1) and dataset.meta["dtype"] == "bfloat16" and dataset.meta["channels"] == 4
    assert dataset.meta["autoencoder"] == {
        "name": f"causal_vae:{vae}",
        "hash": autoencoder.hash,
        "strides": [4, 8, 8],
    }
    for split in ("train", "val"):
        index, before = dataset.index(split), pixels.index(split)
        np.testing.assert_array_equal(index.id, before.id)
        np.testing.assert_array_equal(index.frames, 1 + (before.frames - 1) // 4)
        np.testing.assert_array_equal(index.fps, before.fps / 4)
        for i in range(dataset.size(split)):
            clip = dataset.read_clip(split, i, caption="short")
            expected = autoencoder.encode(pixels.read_clip(split, i).video_TYXC)
            assert clip.video_TYXC.dtype == ml_dtypes.bfloat16
            np.testing.assert_allclose(clip.video_TYXC.astype(np.float32), expected, rtol=1e-2, atol=1e-4)
            np.testing.assert_array_equal(clip.text_ME, pixels.read_clip(split, i, caption="short").text_ME)


def test_built_again_it_is_left_and_with_other_weights_refused(vae, latents, tmp_path, capsys):
    _, dataset, arguments = latents
    assert build(arguments, FakeEncoder()) is None and "already built" in capsys.readouterr().out
    weights = {name: np.ones(shape) for name, shape in causal_vae.shapes(VAE).items()}
    save_causal_vae(tmp_path, weights, VAE, np.zeros(4), np.ones(4))
    with pytest.raises(UserError, match="is a data set with .*autoencoder"):
        build(dataclasses.replace(arguments, autoencoder=f"causal_vae:{tmp_path}"), FakeEncoder())


def test_patch_is_counted_in_latents(vae):
    from data_pipelines.building import build_args

    defaults = {field.name: field.default for field in dataclasses.fields(build_args.Options)}
    flags = {
        **defaults,
        "source": "some",
        "out": "x",
        "patch": None,
        "autoencoder": f"causal_vae:{vae}",
        "text_encoder": "none",
        "workers": 1,
        "time_limit": 9.0,
        "reject_timeouts": False,
        "captioner": "",
        "detector": "",
        "embed": False,
        "engine": "local",
        "ray_address": "",
        "reject": [],
    }
    args = make_args(flags.get)
    assert args.options.patch == Patch(4, 16, 16) and args.stored_patch == Patch(1, 2, 2)
    assert make_args({**flags, "autoencoder": "pixels"}.get).options.patch == Patch(4, 8, 8)


def test_windows_of_latents_are_not_cut_when_rows_are_planned(latents):
    """A later window of latents depends on frames before it, so training on the first one only is no silent choice."""
    _, dataset, _ = latents
    longest = int(dataset.index("train").frames.max())
    config = tiny.change(tiny.tiny_config(), data={"path": str(dataset.path), "row_tokens": 64, "row_examples": 8}).data
    make_plan(dataset, dataclasses.replace(config, max_frames=longest), dataset.patch, 0)
    most = 1 + (longest - 2) * 4
    with pytest.raises(UserError, match=rf"up to {longest}\); build the data again with --max_frames={most}$"):
        make_plan(dataset, dataclasses.replace(config, max_frames=longest - 1), dataset.patch, 0)


def test_a_model_trains_on_latents(latents, tmp_path):
    _, dataset, _ = latents
    config = tiny.tiny_config(steps=3)
    config = tiny.change(config, data={"path": str(dataset.path), "row_examples": 8, "row_tokens": 64})
    losses = []
    tiny.train(config, tmp_path / "run", lambda row: losses.append(row.get("loss")))
    assert np.isfinite([loss for loss in losses if loss is not None]).all()
    assert jax.numpy.isfinite(tiny.restored(tmp_path / "run", config).state.params["out"].get_value()).all()
    about = json.loads((tmp_path / "run" / "dataset.json").read_text())
    about["autoencoder"]["hash"] = "0" * 64
    (tmp_path / "run" / "dataset.json").write_text(json.dumps(about))
    with tiny.two_devices(), pytest.raises(UserError, match="holds other weights than those that made the data of"):
        generator_of(load_run(tmp_path / "run"))
    other = tiny.change(config, data={"autoencoder": "wan:somewhere"})
    with pytest.raises(UserError, match="was made with the autoencoder causal_vae:.*, not wan:somewhere"):
        tiny.train(other, tmp_path / "other")
