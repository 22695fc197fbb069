"""A published pipeline's folder in place of a workdir: text encoder, transformer and autoencoder together."""

import dataclasses
import json

import cli
import numpy as np
import pytest
from models import test_t5, test_wan_vae
from published_wan import write_published

from vdit.config import ModelConfig
from vdit.generation.latents import LatentGenerator
from vdit.models.text.text_encoders import load_text_encoder
from vdit.training.record.workdir import read_config

MODEL = ModelConfig(family="wan", width=16, depth=1, head_width=8)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    text = dataclasses.replace(test_t5.CONFIG, heads=8)  # a head for each of the test's devices
    test_t5.write_weights(folder / "text_encoder", text)
    test_wan_vae.write_weights(folder / "vae")
    write_published(folder / "transformer", MODEL, (test_wan_vae.CONFIG.channels, (1, 2, 2), text.width))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"flow_shift": 5.0}')
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    return folder


@pytest.fixture
def sample(capfd, tmp_path):
    runner = cli.runner(capfd)

    def run(workdir, *flags):
        out = tmp_path / "x.npz"
        options = ("--size=32x16", "--frames=5", "--steps=2", "--sampler=unipc", f"--out={out}")
        done = runner("vdit.sample", f"--workdir={workdir}", *options, *flags)
        if done.status:
            return done
        return next(array for array in np.load(out).values() if array.ndim == 4)

    return run


def test_it_is_sampled_like_a_run(pipeline, sample):
    found = [sample(pipeline, f"--prompt={prompt}") for prompt in ("red ball falls", "blue ball", "red ball falls")]
    assert found[0].shape == (5, 16, 32, 3) and found[0].std() > 1
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    config = read_config(pipeline)
    assert (config.diffusion.shift, config.diffusion.size_shift, config.model.width) == (5.0, False, 16)


def test_the_empty_text_is_encoded_as_published(pipeline, sample, monkeypatch):
    """One end-of-text token, for an empty prompt and for what guidance keeps away from."""
    seen = []
    generate = LatentGenerator.generate

    def look(self, requests, **options):
        seen.extend(requests)
        return generate(self, requests, **options)

    monkeypatch.setattr(LatentGenerator, "generate", look)
    guided = sample(pipeline, "--guidance=4")
    (request,) = seen
    (end_ME,) = dataclasses.replace(load_text_encoder(f"umt5:{pipeline}"), encode_empty=True).encode([""])
    assert len(end_ME) == 1 and np.abs(end_ME).max() > 0
    for found in (request.text_ME, request.negative_ME):
        np.testing.assert_array_equal(found, end_ME.astype(np.float32))
    assert not np.array_equal(guided, sample(pipeline, "--guidance=4", "--prompt=ball"))
    assert len(seen[1].text_ME) == 2 and len(seen[1].negative_ME) == 1


def test_what_cannot_be_sampled_is_said_in_a_line(pipeline, sample, tmp_path):
    assert "holds the weights of one step; leave --step out" in sample(pipeline, "--step=3").error
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline"}))
    assert "holds a WanImageToVideoPipeline; only WanPipeline" in sample(tmp_path).error
    (tmp_path / "model_index.json").write_text("[")
    assert "model_index.json is damaged" in sample(tmp_path).error
