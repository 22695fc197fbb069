"""What a model of latents is given where frames before it are not known."""

import numpy as np

from vdit.autoencoder_config import AutoencoderConfig
from vdit.generation.latents import LatentGenerator, _still_before
from vdit.generation.request import Request
from vdit.models.autoencoders import causal_vae
from vdit.models.autoencoders.registry import load_autoencoder, save_causal_vae
from vdit.patches import Patch

CONFIG = AutoencoderConfig(channels=4, width=8, encoder_blocks=1, decoder_blocks=1)


def test_frames_that_are_not_known_are_the_next_that_is():
    video = np.arange(6)
    known = np.array([False, False, True, False, True, False])
    np.testing.assert_array_equal(_still_before(video, known), [2, 2, 2, 4, 4, 5])


class Inner:
    """Gives back the latents that it is given."""

    patch = Patch(1, 1, 1)

    def generate(self, requests, **settings):
        self.requests = requests
        return [request.given_TYXC for request in requests]


def test_a_last_frame_is_encoded_as_if_it_had_stood_still(tmp_path):
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.05, shape) for name, shape in causal_vae.shapes(CONFIG).items()}
    save_causal_vae(tmp_path, weights, CONFIG, np.zeros(4), np.ones(4))
    generator = object.__new__(LatentGenerator)
    generator._inner, generator._autoencoder = Inner(), load_autoencoder(f"causal_vae:{tmp_path}")
    generator.patch = Patch(4, 8, 8)
    picture = rng.integers(0, 256, (16, 24, 3), np.uint8)
    video, mask = np.zeros((9, 16, 24, 3), np.uint8), np.zeros((9, 16, 24), bool)
    video[5:], mask[5:] = picture, True
    (found,) = generator.generate([Request(np.zeros((0, 6)), 9, 16, 24, 12.0, 0, video, mask)])
    np.testing.assert_array_equal(found[5:], video[5:])
    (inner,) = generator._inner.requests
    still = generator._autoencoder.encode(np.repeat(picture[None], 9, axis=0))
    np.testing.assert_allclose(inner.given_TYXC[2], still[2], atol=1e-5)
    assert inner.mask_TYX.reshape(3, -1).all(1).tolist() == [False, False, True]
