"""Training the causal_vae: better than it starts, resumed exactly, the same on any number of devices, loadable."""

from __future__ import annotations

import dataclasses
import json
import shutil
from unittest import mock

import cli
import jax
import numpy as np
import pytest
import tiny
from random_observer import random_observer
from safetensors.numpy import load_file

from data_pipelines.reading.components import principal_components
from data_pipelines.reading.crops import Crops
from data_pipelines.reading.mixture import Mixture
from data_pipelines.reading.store import Dataset
from data_pipelines.reading.training_data import crop_data
from vdit.autoencoder_config import AutoencoderConfig
from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.generation.restore import load_run
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import load_autoencoder
from vdit.models.features import efficientnet
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify
from vdit.scaling.runs import result_row
from vdit.training.autoencoder import run as autoencoder
from vdit.training.autoencoder import step as autoencoder_step
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import Position

VAE = AutoencoderConfig(channels=4, width=8, encoder_blocks=1, decoder_blocks=1, crop=(5, 8, 16))


def config_of(steps, **train):
    base = tiny.tiny_config(steps=steps, rows=4, **train)
    optimizer = dataclasses.replace(base.optimizer, learning_rate=5e-3)
    return dataclasses.replace(base, task="autoencoder", autoencoder=VAE, optimizer=optimizer)


def train(config, workdir):
    return tiny.train(config, workdir)


def losses(workdir):
    return [row["loss"] for row in read_metrics(workdir) if "loss" in row]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("vae") / "run"
    return workdir, train(config_of(12), workdir)


def test_components_are_those_of_the_data():
    dataset = Dataset(tiny.dataset())
    found = principal_components(dataset, "train", tiny.PATCH, 5)
    clips = [dataset.read_clip("train", i).video_TYXC for i in range(dataset.size("train"))]
    patches = np.concatenate([patchify(np.asarray(clip), tiny.PATCH) for clip in clips]).astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(found.mean_P, patches.mean(0), atol=1e-5)
    centred = patches - patches.mean(0)
    values = np.linalg.svd(centred, compute_uv=False) / np.sqrt(len(patches))
    np.testing.assert_allclose(found.deviation_C, values[:5], rtol=1e-4)
    np.testing.assert_allclose(found.components_PC.T @ found.components_PC, np.eye(5), atol=1e-5)


def test_crops_are_pieces_of_clips_large_enough():
    dataset = Dataset(tiny.dataset())
    crops = Crops(dataset, "train", VAE, seed=3)
    clips = [np.asarray(dataset.read_clip("train", i).video_TYXC) for i in range(dataset.size("train"))]

    def occurs(crop, clip):
        places = [have - want + 1 for have, want in zip(clip.shape[:3], crop.shape[:3], strict=True)]
        return min(places) > 0 and any(
            np.array_equal(clip[t : t + crop.shape[0], y : y + crop.shape[1], x : x + crop.shape[2]], crop)
            for t in range(places[0])
            for y in range(places[1])
            for x in range(places[2])
        )

    seen = set()
    for number in range(8):
        crop = crops(2, number)
        assert crop.shape == (5, 8, 16, 3)
        np.testing.assert_array_equal(crop, Crops(dataset, "train", VAE, seed=3)(2, number))
        matches = [i for i, clip in enumerate(clips) if occurs(crop, clip) or occurs(crop[:, :, ::-1], clip)]
        assert matches
        seen.update(matches)
    assert len(seen) > 2
    with pytest.raises(UserError, match="no clip of split 'train' .* has 65 frames of 16x8; lower autoencoder.crop"):
        Crops(dataset, "train", dataclasses.replace(VAE, crop=(65, 8, 16)), seed=3)


def test_crops_of_several_data_sets(tmp_path):
    """Each is cropped where its clips are large enough, and counts by its frames."""
    paths = [tiny.write_dataset(tmp_path / name, 6, seed=seed) for seed, name in enumerate("ab")]
    datasets = [Dataset(path) for path in paths]
    crops = Crops(Mixture(*datasets), "train", VAE, seed=3)
    ids = [set(dataset.index("train").id.tolist()) for dataset in datasets]
    seen = [crops.clip_id(step, 0) in ids[0] for step in range(40)]
    assert not ids[0] & ids[1] and 5 < sum(seen) < 35
    config = tiny.change(config_of(1), data={"path": ",".join(map(str, paths))})
    train(config, tmp_path / "run")


def test_edges_are_differences_between_neighbours():
    """A constant error has none; a step of one in every row of 8 columns is 1 / 7 over columns, halved."""
    flat = np.zeros((1, 2, 4, 8, 3), np.float32)
    stepped = flat.copy()
    stepped[..., 4:, :] = 1
    assert float(autoencoder_step.edge_error(flat + 0.5, flat)) == 0
    np.testing.assert_allclose(autoencoder_step.edge_error(stepped, flat), 1 / 14, rtol=1e-6)


def test_it_learns_and_is_left_in_the_workdir(trained):
    workdir, result = trained
    seen = losses(workdir)
    assert len(seen) == 12 and np.mean(seen[-3:]) < 0.9 * np.mean(seen[:3])
    assert result["examples"] == 48 and result["patches"] == 48 * 4
    validation = result["validation"]
    assert validation["loss"] == validation["val"]["squared_error"] and validation["val"]["clips"] == 8
    assert sum(size["clips"] for size in validation["val"]["by_size"].values()) == 8
    vae = load_autoencoder(f"causal_vae:{workdir}")
    latents = np.concatenate(
        [vae.encode(Crops(Dataset(tiny.dataset()), "train", VAE, 5)(0, i)).reshape(-1, 4) for i in range(64)]
    )
    np.testing.assert_allclose(latents.mean(0), 0, atol=0.05)
    np.testing.assert_allclose(latents.std(0), 1, atol=0.05)


def test_it_is_evaluated_but_no_model_to_sample_from(trained, capfd, monkeypatch):
    workdir, result = trained
    features = lambda frames: frames.reshape(len(frames), -1)[:, :6].astype(np.float32) / 255  # noqa: E731
    monkeypatch.setattr(efficientnet, "load_features", lambda: features)
    done = cli.runner(capfd)("vdit.evaluate", f"--workdir={workdir}", "--measures=loss,distance", "--json")
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["loss"] == pytest.approx(result["validation"]["loss"])
    assert found["val"]["clips"] == 8 and "kernel_distance" in found["val"]
    with pytest.raises(UserError, match="holds an autoencoder, not a model"):
        load_run(workdir)


def test_resumed_is_uninterrupted(trained, tmp_path):
    """A longer run of constant rate resumes from the shorter one's checkpoint."""
    train(config_of(5), tmp_path / "run")
    train(config_of(12), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(trained[0])
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "run/autoencoder" / name).read_bytes() == (trained[0] / "autoencoder" / name).read_bytes()


def test_a_run_with_two_held_out_splits_has_a_result(tmp_path):
    data = tiny.write_dataset(tmp_path / "data", 12, held_out=("val", "ood"))
    config = tiny.change(config_of(1), data={"path": str(data)})
    found = result_row(config, train(config, tmp_path / "run"))
    assert found["loss"] == found["validation"]["val"]["squared_error"]
    assert found["loss_ood"] == found["validation"]["ood"]["squared_error"] != found["loss"]


def test_without_evaluation_the_newest_weights_are_left_too(trained, tmp_path):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    assert "validation" not in train(config_of(13, evaluate_every=-1), workdir)
    weights = [load_file(path / "autoencoder" / "model.safetensors") for path in (trained[0], workdir)]
    assert any(not np.array_equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_no_process_reads_what_the_first_has_not_left_yet(tmp_path, monkeypatch):
    events = []
    monkeypatch.setattr(autoencoder, "SCALE_CROPS", 1)
    monkeypatch.setattr(autoencoder, "save_causal_vae", lambda *_: events.append("saved"))
    monkeypatch.setattr(autoencoder.multihost_utils, "sync_global_devices", events.append)
    state = mock.Mock(ema={name: np.zeros(shape, np.float32) for name, shape in causal_vae.shapes(VAE).items()})
    config = config_of(1)
    run = autoencoder.AutoencoderRun(config, tmp_path, mock.Mock(), state, Position(), crop_data(config))
    for index in (0, 1):
        with monkeypatch.context() as patch:
            patch.setattr(jax, "process_count", lambda: 2)
            patch.setattr(jax, "process_index", lambda index=index: index)
            run.export()
    assert events == ["saved", "exported", "exported"]


def test_gradients_do_not_depend_on_devices():
    config = config_of(1)
    rng = np.random.default_rng(0)
    basis = causal_vae.PrincipalComponents(
        np.zeros(768, np.float32), np.eye(768, 4, dtype=np.float32), np.ones(4, np.float32)
    )
    crops = rng.integers(0, 256, (4, 5, 8, 16, 3), np.uint8)
    found = []
    for devices in (1, 4):
        mesh = make_mesh(MeshConfig(), jax.devices()[:devices])
        with use_mesh(mesh):
            weights = causal_vae.initial_weights(VAE, 0, basis)
            state = autoencoder_step.init_state(config, weights)
            state, metrics = autoencoder_step.make_train_step(config)(state, to_global(crops, mesh), np.float32(0))
            moments = {name: np.asarray(leaf) for name, leaf in jax.tree.leaves_with_path(state.optimizer)}
        found.append((float(metrics["loss"]), float(metrics["grad_norm"]), moments))
    (loss_a, norm_a, mu_a), (loss_b, norm_b, mu_b) = found
    np.testing.assert_allclose([loss_a, norm_a], [loss_b, norm_b], rtol=1e-5)
    assert len(mu_a) > len(causal_vae.shapes(VAE))
    for name in mu_a:
        np.testing.assert_allclose(mu_a[name], mu_b[name], rtol=1e-3, atol=1e-7, err_msg=str(name))


def test_latents_are_not_trained_on(tmp_path):
    data = tiny.write_dataset(tmp_path / "latents", 6, autoencoder={"name": "causal_vae:x"})
    config = tiny.change(config_of(2), data={"path": str(data)})
    with pytest.raises(UserError, match="holds latents; an autoencoder is trained on a data set of pixels"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_rows_must_be_shared_evenly(tmp_path):
    with pytest.raises(UserError, match="data.rows_per_step=3 is not a multiple of the 2 row shards"):
        train(tiny.change(config_of(2), data={"rows_per_step": 3}), tmp_path)


def test_a_run_starts_from_a_trained_one(trained, tmp_path):
    config = dataclasses.replace(config_of(1), init_from=str(trained[0]))
    mesh, data = make_mesh(config.mesh, jax.devices()[:2]), crop_data(config)
    with use_mesh(mesh):
        params = autoencoder.open_autoencoder(config, tmp_path, data, mesh).state.params
        for name, array in load_file(trained[0] / "autoencoder" / "model.safetensors").items():
            np.testing.assert_array_equal(np.asarray(params[name]), array, name)
        wider = dataclasses.replace(config, autoencoder=dataclasses.replace(VAE, width=16))
        with pytest.raises(UserError, match="model.safetensors: tensor .* is .*, the model's is"):
            autoencoder.open_autoencoder(wider, tmp_path, data, mesh)


def test_the_perceptual_term_lowers_the_distance_of_features():
    """A gradient step along it, on two devices; alone it is off, and nothing observes."""
    config = dataclasses.replace(config_of(1), autoencoder=dataclasses.replace(VAE, perceptual=0.1))
    crops = np.random.default_rng(0).integers(0, 256, (4, 1, 32, 32, 3), np.uint8)
    mesh = make_mesh(MeshConfig(), jax.devices()[:2])
    with use_mesh(mesh):
        dataset = Dataset(config.data.path)
        weights = causal_vae.initial_weights(VAE, 0, principal_components(dataset, "train", Patch(*VAE.strides), 4))
        state, step = autoencoder_step.init_state(config, weights), autoencoder_step.make_train_step
        seen = []
        observed = step(config, random_observer())
        for _ in range(8):
            state, metrics = observed(state, to_global(crops, mesh), np.float32(3e-3))
            seen.append({name: float(value) for name, value in metrics.items()})
    assert np.isfinite([list(row.values()) for row in seen]).all()
    for row in seen:
        expected = row["squared_error"] + VAE.kl * row["kl"] + 0.1 * row["feature_distance"]
        np.testing.assert_allclose(row["loss"], expected, rtol=1e-5)
    assert seen[-1]["feature_distance"] < 0.97 * seen[0]["feature_distance"]
    assert VAE.perceptual == 0
