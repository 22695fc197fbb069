"""Published Wan weights from end to end: fine-tuned on latents, resumed, exported, sampled to pixels."""

import dataclasses
import json
import shutil

import cli
import numpy as np
import pytest
import tiny
from etils import epath
from models.test_wan_vae import CONFIG_22, write_weights
from PIL import Image
from published_wan import write_published
from safetensors.numpy import load_file
from test_sample_cli import Words

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading.records import Record
from data_pipelines.reading.store import Dataset
from vdit.autoencoder_config import AutoencoderConfig
from vdit.config import ModelConfig
from vdit.generation.restore import load_run
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import load_autoencoder, save_causal_vae
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.patches import Patch, patchify
from vdit.training.initial import named

CHANNELS, PATCH = 4, Patch(1, 2, 2)
MODEL = ModelConfig(family="wan", width=24, depth=2, head_width=12, feed_forward=7 / 3)
VAE = AutoencoderConfig(channels=CHANNELS, width=4, encoder_blocks=1, decoder_blocks=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan") / "pipeline"
    write_published(folder / "transformer", MODEL, (CHANNELS, (1, 2, 2), tiny.TEXT_WIDTH))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Random latents that say they are of a small causal_vae."""
    folder = tmp_path_factory.mktemp("latents")
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(0, 0.1, shape) for name, shape in causal_vae.shapes(VAE).items()}
    save_causal_vae(folder / "vae", arrays, VAE, np.zeros(CHANNELS), np.ones(CHANNELS))
    (folder / "data").mkdir()
    writer = DatasetWriter(epath.Path(folder / "data"), "latents", PATCH)
    for i in range(12):
        shape = (int(rng.integers(1, 4)), *(2 * rng.integers(1, 4, 2)), CHANNELS)
        words = rng.normal(size=(int(rng.integers(0, 4)), tiny.TEXT_WIDTH)).astype(np.float16)
        writer.add("train", Record(i + 1, rng.normal(size=shape).astype(np.float32), 3.0, {"c": ""}, {"c": words}, {}))
    about = {
        "source": "latents",
        "licence": "none",
        "autoencoder": load_autoencoder(f"causal_vae:{folder / 'vae'}").identity,
        "text_encoder": {"name": "random", "width": tiny.TEXT_WIDTH, "hash": ""},
        "build": {},
    }
    writer.finish(about)
    return folder / "data"


@pytest.fixture
def run(capfd, monkeypatch):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    return cli.runner(capfd)


def config_of(folder, data, **values):
    config = tiny.tiny_config(steps=1, evaluate_every=-1, log_every=1, **values)
    return tiny.write_config(
        folder / "config.py", tiny.change(config, data={"path": str(data), "row_tokens": 96}, model={"family": "wan"})
    )


def test_fine_tunes_resumes_exports_and_samples(run, weights, data, tmp_path):
    mine = shutil.copytree(weights, tmp_path / "mine")
    config = config_of(tmp_path, data)
    train = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--config.init_from={mine}")
    done = run(*train)
    assert done.status == 0, done.err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    sizes = {name: stored["model"][name] for name in ("family", "width", "depth", "head_width", "prediction")}
    assert sizes == {"family": "wan", "width": 24, "depth": 2, "head_width": 12, "prediction": "v"}
    assert stored["diffusion"]["mean"] == [0.0] and stored["init_from"] == str(mine)
    shutil.rmtree(mine)  # a run that goes on does not need them any more
    done = run(*train, "--config.train.steps=2")
    assert done.status == 0 and "step 2/2" in done.out, done.err

    done = run("vdit.export", f"--workdir={tmp_path / 'run'}", f"--out={tmp_path / 'export'}")
    assert done.status == 0, done.err
    tensors = load_file(tmp_path / "export" / "model.safetensors")
    again = config_of(tmp_path, data)
    done = run(
        "vdit.train",
        f"--config={again}",
        f"--workdir={tmp_path / 'again'}",
        f"--config.init_from={tmp_path / 'export'}",
        "--config.optimizer.learning_rate=0.0",
    )
    assert done.status == 0, done.err
    with tiny.two_devices():
        params = load_run(tmp_path / "again").state.params
    for name, leaf in named(params).items():
        np.testing.assert_array_equal(np.asarray(leaf), tensors[name], name)

    first = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
    Image.fromarray(first).save(tmp_path / "first.png")
    flags = ("--prompt=a dog", f"--image={tmp_path / 'first.png'}", "--size=48x32", "--frames=9", "--steps=2")
    videos = []
    for workdir in ("run", "export"):
        out = tmp_path / f"{workdir}.npz"
        done = run("vdit.sample", f"--workdir={tmp_path / workdir}", *flags, f"--out={out}")
        assert done.status == 0, done.err
        assert "9 frames of 48x32 at 12 frames/s" in done.out
        videos.append(next(array for array in np.load(out).values() if array.ndim == 4))
    assert videos[0].shape == (9, 32, 48, 3) and videos[0].dtype == np.uint8
    np.testing.assert_array_equal(videos[0][0], first)
    assert videos[0][1:].std() > 1
    np.testing.assert_array_equal(videos[0], videos[1])
    flags = ("--prompt=a dog", f"--last={tmp_path / 'first.png'}", "--size=48x32", "--frames=9", f"--out={out}")
    done = run("vdit.sample", f"--workdir={tmp_path / 'run'}", *flags)
    assert done.status == 0, done.err
    np.testing.assert_array_equal(np.load(out)["video"][-1], first)


def test_one_expert_is_trained_on_its_times_and_sampled_with_its_partner(run, data, tmp_path):
    pipeline, config = tmp_path / "pipeline", config_of(tmp_path, data)
    for seed, name in enumerate(("transformer", "transformer_2")):
        write_published(pipeline / name, MODEL, (CHANNELS, (1, 2, 2), tiny.TEXT_WIDTH), seed=seed)
    train = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'low'}")
    alone = run(*train, f"--config.init_from={pipeline / 'transformer_2'}")
    assert "transformer_2 is one expert of two, and no model_index.json beside it says" in alone.error
    (pipeline / "model_index.json").write_text('{"_class_name": "WanPipeline", "boundary_ratio": 0.875}')
    both = run(*train, f"--config.init_from={pipeline}")
    assert (
        "holds two experts; name the one to train" in both.error and "transformer_2 (times (0.0, 0.875))" in both.error
    )
    done = run(*train, f"--config.init_from={pipeline / 'transformer_2'}")
    assert done.status == 0, done.err
    assert json.loads((tmp_path / "low" / "config.json").read_text())["diffusion"]["times"] == [0.0, 0.875]
    sample = ("vdit.sample", f"--workdir={tmp_path / 'low'}", "--size=48x32", "--frames=5", "--steps=2")
    sample = (*sample, f"--out={tmp_path / 'x.npz'}")
    assert "holds one expert of two, for times (0.0, 0.875); sample it with --partner" in run(*sample).error
    done = run(*sample, f"--partner={pipeline / 'transformer'}")
    assert done.status == 0 and "5 frames of 48x32" in done.out, done.err


def test_image_to_video_is_trained_on_what_is_known_of_each_clip(run, tmp_path):
    """Data of `wan_i2v`: latents, and behind them a mask and the latents of the first frame."""
    known = CHANNELS + 4
    writer = DatasetWriter(epath.Path(tmp_path), "latents", PATCH)
    rng = np.random.default_rng(0)
    for i in range(48):
        latents = rng.normal(size=(int(rng.integers(1, 4)), 4, 4, CHANNELS + known)).astype(np.float32)
        writer.add(
            "train", Record(i + 1, latents, 3.0, {"c": ""}, {"c": np.zeros((2, tiny.TEXT_WIDTH), np.float16)}, {})
        )
    about = {"name": "wan_i2v:W", "hash": "", "strides": [4, 8, 8], "condition": known}
    encoder = {"name": "random", "width": tiny.TEXT_WIDTH, "hash": ""}
    writer.finish({"source": "", "licence": "", "autoencoder": about, "text_encoder": encoder, "build": {}})
    dataset = Dataset(str(tmp_path))
    stored = np.asarray(dataset.read_clip("train", 0).video_TYXC)
    parts = [patchify(part, PATCH) for part in np.split(stored, [CHANNELS], -1)]
    np.testing.assert_array_equal(dataset.read_example("train", 0).patches_LP, np.concatenate(parts, -1))

    model = dataclasses.replace(MODEL, condition=PATCH.size(known))
    write_published(tmp_path / "i2v", model, (CHANNELS, (1, 2, 2), tiny.TEXT_WIDTH))
    write_published(tmp_path / "clip", dataclasses.replace(model, image=4), (CHANNELS, (1, 2, 2), tiny.TEXT_WIDTH))
    train = ("vdit.train", f"--config={config_of(tmp_path, tmp_path)}", f"--workdir={tmp_path / 'run'}")
    assert "attends to CLIP features" in run(*train, f"--config.init_from={tmp_path / 'clip'}").error
    done = run(*train, f"--config.init_from={tmp_path / 'i2v'}")
    assert done.status == 0 and "step 1/1" in done.out, done.err
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["diffusion"]["modes"]["text"] == 1 and stored["model"]["condition"] == PATCH.size(known)


def test_weights_must_be_said_to_be_of_wan_and_fit_the_data(run, weights, data, tmp_path):
    config = config_of(tmp_path, data)
    train = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--config.init_from={weights}")
    assert run(*train, "--config.model.family=spacetime").error.endswith("are weights of Wan; set model.family=wan")
    wrong = run(*train, f"--config.data.path={tiny.dataset()}", "--config.data.max_frames=0")
    assert "takes patches of 2x2 latents of 4 channels and captions of 6 features" in wrong.error
    assert not (tmp_path / "run").exists()
    pipeline = shutil.copytree(weights, tmp_path / "pipeline")
    vae = dataclasses.replace(CONFIG_22, channels=CHANNELS, mean=(0.0,) * CHANNELS, std=(1.0,) * CHANNELS)
    write_weights(pipeline / "vae", vae)
    other = run(*train, f"--config.init_from={pipeline}").error
    assert "is for latents of (4, 16, 16) frames, rows and columns; the data, made with causal_vae:" in other
