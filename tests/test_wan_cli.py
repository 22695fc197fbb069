"""Published Wan weights from end to end: fine-tuned on latents, resumed, exported, sampled to pixels."""

import json
import shutil

import cli
import numpy as np
import pytest
import tiny
from etils import epath
from PIL import Image
from published_wan import write_published
from safetensors.numpy import load_file
from test_sample_cli import Words

from data_pipelines.building.dataset_writer import DatasetWriter
from data_pipelines.reading.records import Record
from vdit.autoencoder_config import AutoencoderConfig
from vdit.config import ModelConfig
from vdit.generation.restore import load_run
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import load_autoencoder, save_causal_vae
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.patches import Patch
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


def test_weights_must_be_said_to_be_of_wan_and_fit_the_data(run, weights, data, tmp_path):
    config = config_of(tmp_path, data)
    train = ("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}", f"--config.init_from={weights}")
    assert run(*train, "--config.model.family=spacetime").error.endswith("are weights of Wan; set model.family=wan")
    wrong = run(*train, f"--config.data.path={tiny.dataset()}", "--config.data.max_frames=0")
    assert "takes patches of 2x2 latents of 4 channels and captions of 6 features" in wrong.error
    assert not (tmp_path / "run").exists()
