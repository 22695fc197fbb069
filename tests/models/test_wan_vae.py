"""The Wan autoencoder on random weights; tests/parity/test_wan_vae.py compares it with the published implementation."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from vdit.errors import UserError
from vdit.models.autoencoders import wan_vae
from vdit.models.autoencoders.wan_vae_config import WanVaeConfig
from vdit.models.autoencoders.wan_vae_layers import channels_to_squares, published_shapes, squares_to_channels

CONFIG = WanVaeConfig(width=4, blocks=1, channels=2, mean=(0.1, -0.2), std=(0.5, 1.5))
CONFIG_22 = dataclasses.replace(CONFIG, decoder_width=8, residual=True, patch=2)


def write_weights(folder, config=CONFIG, **values):
    rng = np.random.default_rng(0)
    tensors = {
        name: (rng.normal(0, 0.2, shape) + (name.endswith("gamma"))).astype(np.float32)
        for name, shape in published_shapes(config).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    about = {
        "_class_name": "AutoencoderKLWan",
        "base_dim": config.width,
        "decoder_base_dim": config.decoder_width or None,
        "dim_mult": config.multiples,
        "num_res_blocks": config.blocks,
        "temperal_downsample": config.halve_time,
        "z_dim": config.channels,
        "latents_mean": config.mean,
        "latents_std": config.std,
        "is_residual": config.residual,
        "in_channels": config.pixel_channels,
        "out_channels": config.pixel_channels,
        "patch_size": config.patch if config.patch > 1 else None,
    }
    (folder / "config.json").write_text(json.dumps({**about, **values}))
    return folder


@pytest.fixture(scope="module", params=[CONFIG, CONFIG_22], ids=["2.1", "2.2"])
def folder(request, tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("wan") / "vae", request.param)


@pytest.fixture(scope="module")
def wan(folder):
    return wan_vae.load_wan_vae(str(folder.parent))  # as a pipeline's folder


def clip(frames=17, height=16, width=32):
    return np.random.default_rng(3).integers(0, 256, (frames, height, width, 3), np.uint8)


def test_shapes_and_identity(wan, folder):
    side = 16 if '"is_residual": true' in (folder / "config.json").read_text() else 8
    assert (wan.strides, wan.channels, wan.name, len(wan.hash)) == ((4, side, side), 2, f"wan:{folder.parent}", 64)
    latents = wan.encode(clip())
    assert latents.shape == (5, 16 // side, 32 // side, 2) and latents.dtype == np.float32
    video = wan.decode(latents)
    assert video.shape == (17, 16, 32, 3) and video.dtype == np.uint8


@pytest.mark.parametrize("chunk", [1, 3])
def test_streamed_is_whole(wan, chunk):
    video = clip()
    whole = wan.encode(video, chunk=4)
    np.testing.assert_allclose(wan.encode(video, chunk=chunk), whole, atol=1e-5)
    pieces = [video[:6], video[6:7], video[7:]]  # any pieces: they are regrouped
    np.testing.assert_allclose(np.concatenate(list(wan.encode_stream(pieces, chunk))), whole, atol=1e-5)
    # bytes: a rounding of x.5 may go either way
    assert np.abs(wan.decode(whole, chunk=chunk).astype(int) - wan.decode(whole, chunk=4)).max() <= 1


def test_causal(wan):
    video = clip()
    changed = video.copy()
    changed[9:] = 255 - changed[9:]
    before, after = wan.encode(video), wan.encode(changed)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3:] != after[3:]).any()
    latents = before.copy()
    latents[3:] += 1
    np.testing.assert_array_equal(wan.decode(latents)[:9], wan.decode(before)[:9])


def test_an_image_is_the_first_frame_of_a_video(wan):
    video = clip()
    np.testing.assert_allclose(wan.encode(video[:1]), wan.encode(video)[:1], atol=1e-6)


def test_constant_memory(wan):
    """What is left for the next chunk does not grow."""
    _, past = wan.encoder(wan.weights, np.zeros((1, 1, 16, 16, 3), np.float32), None)
    sizes = []
    for _ in range(3):
        _, past = wan.encoder(wan.weights, np.zeros((1, 4, 16, 16, 3), np.float32), past)
        sizes.append({name: array.shape for name, array in past.items()})
    assert sizes[0] == sizes[1] == sizes[2]


@pytest.mark.parametrize(
    ("video", "message"),
    [(clip(16), "must have 1 \\+ k\\*4 frames"), (clip(1, 12), "32x12 are not multiples of")],
)
def test_clips_off_the_grid_are_refused(wan, video, message):
    with pytest.raises(UserError, match=message):
        wan.encode(video)


def test_squares_of_pixels_come_back(wan):
    video = np.random.default_rng(0).normal(size=(1, 2, 4, 6, 3))
    channels = squares_to_channels(video, 2)
    assert channels.shape == (1, 2, 2, 3, 12)
    # as published: of one channel of the pixels, row by row within a column
    np.testing.assert_array_equal(channels[0, 0, 0, 0, :4], video[0, 0, [0, 1, 0, 1], [0, 0, 1, 1], 0])
    np.testing.assert_array_equal(channels_to_squares(channels, 2), video)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"is_residual": True}, "no tensor encoder.down_blocks.0.resnets.0"),
        ({"patch_size": 2}, "not the config of a Wan 2.1 or 2.2 autoencoder .in_channels 3 with patch_size 2"),
        ({"attn_scales": [0.5]}, "attn_scales is set"),
        ({"temperal_downsample": [True]}, "4 dim_mult with 1 temperal_downsample"),
        ({"_class_name": "AutoencoderKL"}, "is not the config of a Wan 2.1 or 2.2 autoencoder"),
        ({"num_res_blocks": 2}, r"tensor encoder\.down_blocks\.1\.|no tensor encoder"),
    ],
)
def test_other_weights_are_refused(tmp_path, values, message):
    folder = write_weights(tmp_path, **values)
    with pytest.raises(UserError, match=message) as error:
        wan_vae.load_wan_vae(str(folder))
    assert "\n" not in str(error.value)
