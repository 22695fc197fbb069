"""A published pipeline's folder in place of a workdir: text encoder, transformer and autoencoder together."""

import dataclasses
import json
import shutil

import cli
import numpy as np
import pytest
from models import test_t5, test_wan_vae
from models.test_wan_i2v import CLIP, write_clip
from PIL import Image
from published_wan import write_published

from vdit.config import ModelConfig
from vdit.generation.latents import LatentGenerator
from vdit.models.text.text_encoders import load_text_encoder
from vdit.training.record.workdir import read_config

MODEL = ModelConfig(family="wan", width=16, depth=1, head_width=8)


def write_pipeline(folder, vae=test_wan_vae.CONFIG, experts=("transformer",), model=MODEL, **index):
    """A published pipeline with random weights; every expert has others."""
    text = dataclasses.replace(test_t5.CONFIG, heads=8)  # a head for each of the test's devices
    test_t5.write_weights(folder / "text_encoder", text)
    test_wan_vae.write_weights(folder / "vae", vae)
    for seed, name in enumerate(experts):
        write_published(folder / name, model, (vae.channels, (1, 2, 2), text.width), seed=seed)
    if model.image:
        write_clip(folder / "image_encoder", dataclasses.replace(CLIP, width=model.image))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text('{"flow_shift": 5.0}')
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanPipeline", **index}))
    return folder


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return write_pipeline(tmp_path_factory.mktemp("wan"))


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


def test_a_time_for_every_token_and_the_autoencoder_of_2_2(sample, tmp_path):
    """TI2V: the model of text to video continues a given frame, whose patches have time 0."""
    folder = write_pipeline(tmp_path / "ti2v", test_wan_vae.CONFIG_22, expand_timesteps=True, boundary_ratio=None)
    image = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    Image.fromarray(image).save(tmp_path / "first.png")
    plain = sample(folder, "--prompt=ball", "--size=64x32")
    given = sample(folder, "--prompt=ball", "--size=64x32", f"--image={tmp_path / 'first.png'}")
    assert plain.shape == given.shape == (5, 32, 64, 3)
    np.testing.assert_array_equal(given[0], image)
    assert not np.array_equal(given[1:], plain[1:])
    assert json.loads((tmp_path / "x.json").read_text())["fps"] == 24
    assert "is not a multiple of the 32x32 patch" in sample(folder, "--size=48x32").err


def test_two_experts_share_the_times(sample, tmp_path):
    experts = ("transformer", "transformer_2")
    both = write_pipeline(tmp_path / "both", experts=experts, boundary_ratio=0.875)
    assert read_config(both).diffusion.times == (0.875, 1.0)
    found = sample(both, "--prompt=ball")
    for name in experts:
        one = write_pipeline(tmp_path / name)
        shutil.rmtree(one / "transformer")
        shutil.copytree(both / name, one / "transformer")
        alone = sample(one, "--prompt=ball")
        assert not np.array_equal(found, alone)
    same = shutil.copytree(both, tmp_path / "same")
    shutil.rmtree(same / "transformer_2")
    assert "has no folder transformer_2 beside the other expert's (boundary_ratio 0.875)" in sample(same).error
    shutil.copytree(same / "transformer", same / "transformer_2")
    one = write_pipeline(tmp_path / "single")
    np.testing.assert_array_equal(sample(same, "--prompt=ball"), sample(one, "--prompt=ball"))
    (same / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    assert "has two experts, but its model_index.json no boundary_ratio" in sample(same).error
    (same / "model_index.json").write_text('{"_class_name": "WanPipeline", "boundary_ratio": 875}')
    assert "boundary_ratio=875, not a time between 0 and 1" in sample(same).error
    assert "--partner=x is for one expert of two" in sample(one, "--partner=x").error
    assert "they must add up" in sample(both, f"--partner={both / 'transformer'}").error


@pytest.mark.parametrize("image", [8, 0], ids=["2.1", "2.2"])
def test_image_to_video(sample, tmp_path, image):
    """Wan 2.1 attends to CLIP features of the first frame, Wan 2.2 has two experts."""
    model = dataclasses.replace(MODEL, condition=4 * 6, image=image)
    experts = {} if image else {"experts": ("transformer", "transformer_2"), "boundary_ratio": 0.9}
    folder = write_pipeline(tmp_path / "i2v", model=model, _class_name="WanImageToVideoPipeline", **experts)
    config = read_config(folder)
    assert (config.model.condition, config.model.image) == (24, image)
    videos = []
    for number in range(2):
        first = np.random.default_rng(number).integers(0, 256, (16, 32, 3), np.uint8)
        Image.fromarray(first).save(tmp_path / "first.png")
        given = (folder, "--prompt=ball", f"--image={tmp_path / 'first.png'}")
        videos.append(sample(*given, "--guidance=2"))
        np.testing.assert_array_equal(videos[-1][0], first)
    assert videos[0].shape == (5, 16, 32, 3) and not np.array_equal(videos[0][1:], videos[1][1:])
    for flags in ((), (f"--last={tmp_path / 'first.png'}",)):
        done = sample(folder, *flags)
        assert done.status == 2 and "from their first frame and a caption; give --image" in done.err
    (folder / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    assert "fetch the pipeline again" in sample(folder).error


def test_an_autoencoder_of_other_latents_is_refused(sample, tmp_path):
    folder = write_pipeline(tmp_path / "wrong")
    test_wan_vae.write_weights(
        folder / "vae", dataclasses.replace(test_wan_vae.CONFIG_22, channels=3, mean=(0,) * 3, std=(1,) * 3)
    )
    assert "makes latents of 2 channels, those of" in sample(folder).error


def test_what_cannot_be_sampled_is_said_in_a_line(pipeline, sample, tmp_path):
    assert "holds the weights of one step; leave --step out" in sample(pipeline, "--step=3").error
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "WanVACEPipeline"}))
    assert "holds a WanVACEPipeline; only WanPipeline and WanImageToVideoPipeline can" in sample(tmp_path).error
    (tmp_path / "model_index.json").write_text("[")
    assert "model_index.json is damaged" in sample(tmp_path).error
