"""Clips encoded on all devices of a process: the latents of one device, and what it takes."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from models import test_wan_vae

from vdit.autoencoder_config import AutoencoderConfig
from vdit.errors import UserError
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.clip_encoding import ClipEncoder
from vdit.models.autoencoders.registry import load_autoencoder, save_causal_vae

CONFIG = AutoencoderConfig(channels=4, width=8, encoder_blocks=1, decoder_blocks=1)
SHAPES = [(9, 16, 16), (1, 16, 24), (17, 16, 16), (5, 16, 24), *[(5, 16, 16)] * 8, (1, 16, 16)]


@pytest.fixture(scope="module", params=["causal_vae", "wan"])
def autoencoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "wan":
        test_wan_vae.write_weights(folder)
    else:
        rng = np.random.default_rng(0)
        weights = {name: rng.normal(0, 0.05, shape) for name, shape in causal_vae.shapes(CONFIG).items()}
        save_causal_vae(folder, weights, CONFIG, np.zeros(4), np.ones(4))
    return load_autoencoder(f"{request.param}:{folder}")


def videos(shapes):
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (*shape, 3), np.uint8) for shape in shapes]


def test_eight_devices_give_the_latents_of_one(autoencoder):
    clips = videos(SHAPES if autoencoder.name.startswith("causal") else SHAPES[:1] * 3 + SHAPES[4:5])
    one, eight = (ClipEncoder(autoencoder, jax.devices()[:count]) for count in (1, 8))
    assert (one.devices, eight.devices) == (1, 8)
    for clip, alone, among_others in zip(clips, one(clips), eight(clips), strict=True):
        assert len(among_others) == 1 + (len(clip) - 1) // 4
        np.testing.assert_array_equal(among_others, alone)
        np.testing.assert_allclose(alone, autoencoder.encode(clip, chunk=1), atol=1e-5)


@pytest.mark.parametrize("autoencoder", ["causal_vae"], indirect=True)  # what is counted knows no network
def test_two_programs_for_a_size_and_the_padding_are_told(autoencoder):
    encoder = ClipEncoder(autoencoder, jax.devices()[:4])
    encoder(videos(SHAPES))
    assert encoder.usage.programs == {(frames, 16, side) for frames in (1, 4) for side in (16, 24)}
    assert encoder._network._cache_size() == 4
    # 16x16: 17, 9, 5, 5 | 5 x 4 | 5, 5, 1 frames; 24x16: 5, 1
    assert encoder.usage.groups == 5 + 3 + 2 * 8 + 1 + 2 + 1
    assert encoder.usage.slots == 4 * (5 + 2 + 2 + 2)
    assert str(encoder.usage) == (
        "28 latent frames by 4 compiled programs for 2 size(s) of frame; 36.4% of the work was padding"
    )


@pytest.mark.parametrize("shape", [(4, 16, 16), (5, 12, 16), (5, 16, 20)])
def test_clips_that_do_not_fit_are_refused(autoencoder, shape):
    with pytest.raises(UserError, match=r"are not 1 \+ k\*4 frames of multiples of 8x8"):
        ClipEncoder(autoencoder)(videos([shape]))
