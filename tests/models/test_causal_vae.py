"""The causal_vae: streamed = whole, tiled = whole, causal, an image is a first frame, and a PCA to begin with."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from vdit.autoencoder_config import AutoencoderConfig
from vdit.errors import UserError
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import EXPORT, load_autoencoder, save_causal_vae
from vdit.patches import Patch, patchify

CONFIG = AutoencoderConfig(channels=6, width=8, encoder_blocks=1, decoder_blocks=2, fine_width=6, fine_blocks=2)
PATCH = Patch(4, 8, 8)


def clip(frames=17, height=16, width=24, seed=3):
    return np.random.default_rng(seed).integers(0, 256, (frames, height, width, 3), np.uint8)


def basis(config=CONFIG):
    rng = np.random.default_rng(0)
    size = Patch(*config.strides).size(3)
    components, _ = np.linalg.qr(rng.normal(size=(size, config.channels)))
    deviation = np.linspace(3, 1, config.channels)
    return causal_vae.PrincipalComponents(*(np.float32(x) for x in (rng.normal(size=size) / 9, components, deviation)))


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """With weights that are far from where they start, so that every part does something."""
    rng = np.random.default_rng(1)
    weights = causal_vae.initial_weights(CONFIG, 0, basis())
    weights = {name: np.asarray(array) + rng.normal(0, 0.3, array.shape) for name, array in weights.items()}
    workdir = tmp_path_factory.mktemp("vae")
    save_causal_vae(workdir / EXPORT, weights, CONFIG, np.full(6, 0.1), np.linspace(0.5, 2, 6))
    return load_autoencoder(f"causal_vae:{workdir}")


def test_it_starts_as_the_principal_components():
    weights, video = causal_vae.initial_weights(CONFIG, 0, basis()), clip(9)
    patches = causal_vae.group_frames(video[None].astype(np.float32) / 127.5 - 1, True, PATCH)
    np.testing.assert_array_equal(patches.reshape(-1, PATCH.size(3)), patchify(video, PATCH) / np.float32(127.5) - 1)
    mean, log_variance, _ = causal_vae.moments(weights, patches, None, CONFIG)
    found, _ = causal_vae.reconstruct(weights, mean, None, CONFIG)
    expected = basis().reconstruct(np.asarray(patches).reshape(-1, PATCH.size(3)))
    np.testing.assert_allclose(np.asarray(found).reshape(expected.shape), expected, atol=1e-4)
    np.testing.assert_allclose(np.exp(log_variance / 2), CONFIG.initial_noise, rtol=1e-5)


@pytest.mark.parametrize("first", [True, False])
def test_grouping_round_trip(first):
    video = clip(9 if first else 8)[None].astype(np.float32)
    patches = causal_vae.group_frames(video, first, PATCH)
    np.testing.assert_array_equal(causal_vae.ungroup_frames(patches, first, PATCH), video)


@pytest.mark.parametrize("chunk", [1, 3])
def test_streamed_is_whole(vae, chunk):
    video = clip()
    whole = vae.encode(video, chunk=4)
    assert whole.shape == (5, 2, 3, 6)
    np.testing.assert_allclose(vae.encode(video, chunk=chunk), whole, atol=1e-5)
    np.testing.assert_allclose(
        np.concatenate(list(vae.encode_stream([video[:6], video[6:7], video[7:]], chunk))), whole, atol=1e-5
    )
    assert (
        np.abs(vae.decode(whole, chunk=chunk).astype(int) - vae.decode(whole, chunk=4)).max() <= 1
    )  # x.5 rounds either way


@pytest.mark.parametrize(("height", "width"), [(136, 24), (88, 152)])
def test_tiled_is_whole(vae, height, width):
    video = clip(5, height, width)
    whole = vae.encode(video)
    np.testing.assert_allclose(vae.encode(video, tile=4), whole, atol=1e-5)
    assert np.abs(vae.decode(whole, tile=4).astype(int) - vae.decode(whole)).max() <= 1


def test_a_halo_one_smaller_is_too_small(vae):
    """The halo is what is needed, or this suite would not notice one that is not."""
    small = type(vae)(**{**vars(vae), "halo": vae.halo - 1})
    latents = np.random.default_rng(4).normal(0, 1, (2, 17, 3, 6)).astype(np.float32)
    assert np.abs(small.decode(latents, tile=4).astype(int) - vae.decode(latents)).max() > 1


def test_causal(vae):
    video = clip()
    changed = video.copy()
    changed[9:] = 255 - changed[9:]
    before, after = vae.encode(video), vae.encode(changed)
    np.testing.assert_array_equal(before[:3], after[:3])
    assert (before[3] != after[3]).any()
    latents = before.copy()
    latents[3:] += 1
    np.testing.assert_array_equal(vae.decode(latents)[:9], vae.decode(before)[:9])


def test_an_image_is_the_first_frame_of_a_video(vae):
    video = clip()
    np.testing.assert_allclose(vae.encode(video[:1]), vae.encode(video)[:1], atol=1e-6)


def test_latents_are_scaled(vae, tmp_path):
    """Loading scales latents by what was saved, and decoding undoes it."""
    weights = causal_vae.initial_weights(CONFIG, 0, basis())
    mean, std = np.full(6, 0.5), np.linspace(1, 3, 6)
    for name, scale in (("raw", (np.zeros(6), np.ones(6))), ("scaled", (mean, std))):
        save_causal_vae(tmp_path / name, weights, CONFIG, *scale)
    raw, scaled = (load_autoencoder(f"causal_vae:{tmp_path / name}") for name in ("raw", "scaled"))
    video = clip(5)
    np.testing.assert_allclose(scaled.encode(video), (raw.encode(video) - mean) / std, atol=1e-5)
    assert np.abs(scaled.decode(scaled.encode(video)).astype(int) - raw.decode(raw.encode(video))).max() <= 1
    assert (vae.strides, vae.channels, len(vae.hash)) == ((4, 8, 8), 6, 64) and raw.hash == scaled.hash != vae.hash


def test_fine_blocks_put_their_pixels_in_place():
    """What a fine position adds to a patch is the part of it that lies there."""
    weights = causal_vae.initial_weights(CONFIG, 0, basis())
    wide = np.zeros((CONFIG.width, 2, 2, CONFIG.fine_width), np.float32)
    wide[0] = np.arange(1, 5).reshape(2, 2, 1)  # each of the four parts of a patch is a number
    weights |= {"fine.in": wide.reshape(CONFIG.width, -1), "fine.out": np.full((CONFIG.fine_width, 192), 1 / 6)}
    h_BTYXD = np.zeros((1, 1, 2, 3, CONFIG.width), np.float32)
    h_BTYXD[..., 0] = 10 ** np.arange(6).reshape(2, 3)
    patches = causal_vae._fine_patches(weights, causal_vae.Stream(None), h_BTYXD, CONFIG)
    frame = np.asarray(causal_vae.ungroup_frames(patches, False, PATCH))[0, 0, ..., 0]
    expected = np.kron(np.kron(10 ** np.arange(6).reshape(2, 3), [[1, 2], [3, 4]]), np.ones((4, 4)))
    np.testing.assert_allclose(frame, expected, rtol=1e-5)


def test_fine_blocks_need_even_patches():
    with pytest.raises(UserError, match="fine_blocks needs even rows and columns in autoencoder.strides"):
        AutoencoderConfig(strides=(1, 1, 8), crop=(1, 1, 8), fine_blocks=1)


def test_other_strides(tmp_path):
    config = AutoencoderConfig(strides=(2, 4, 4), crop=(5, 8, 8), channels=3, width=8, decoder_blocks=1)
    weights = causal_vae.initial_weights(config, 0, basis(config))
    save_causal_vae(tmp_path, jax.tree.map(np.asarray, weights), config, np.zeros(3), np.ones(3))
    vae = load_autoencoder(f"causal_vae:{tmp_path}")
    latents = vae.encode(clip(5, 12, 8))
    assert latents.shape == (3, 3, 2, 3) and vae.decode(latents).shape == (5, 12, 8, 3)


def test_wrong_folders_are_one_line(tmp_path, vae):
    with pytest.raises(
        UserError, match="no autoencoder is called 'vq:x'; choose one of causal_vae:WEIGHTS, wan:WEIGHTS"
    ):
        load_autoencoder("vq:x")
    with pytest.raises(UserError, match="config.json is not that of a causal_vae"):
        load_autoencoder(f"causal_vae:{tmp_path}")
    weights = {name: np.zeros(shape) for name, shape in causal_vae.shapes(CONFIG).items() if name != "decoder.out"}
    save_causal_vae(tmp_path, weights, CONFIG, np.zeros(6), np.ones(6))
    with pytest.raises(UserError, match=r"no tensor decoder.out \[8, 768\]"):
        load_autoencoder(f"causal_vae:{tmp_path}")
    save_causal_vae(tmp_path, weights, CONFIG, np.zeros(1), np.ones(1))
    with pytest.raises(UserError, match="mean and std are not 6 numbers each"):
        load_autoencoder(f"causal_vae:{tmp_path}")
