"""The Wan 2.1 and 2.2 autoencoders against diffusers, on random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan

from vdit.models.autoencoders import wan_vae

MEAN, STD = [0.1, 0.2, -0.3, 0.4], [1.0, 2.0, 0.5, 1.5]
SIZES = {"base_dim": 8, "z_dim": 4, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2}
SIZES_22 = {
    **SIZES,
    "decoder_base_dim": 12,
    "is_residual": True,
    "patch_size": 2,
    "in_channels": 12,
    "out_channels": 12,
    "scale_factor_spatial": 16,
}


@pytest.fixture(scope="module", params=[SIZES, SIZES_22], ids=["2.1", "2.2"])
def published(request, tmp_path_factory):
    torch.manual_seed(0)
    model = AutoencoderKLWan(**request.param, latents_mean=MEAN, latents_std=STD).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("wan")
    model.save_pretrained(folder)
    return model, wan_vae.load_wan_vae(str(folder))


@pytest.mark.parametrize(("frames", "height", "width"), [(1, 32, 48), (9, 32, 40), (17, 24, 16)])
@pytest.mark.parametrize("chunk", [1, 4])
def test_equals_the_published_autoencoder(published, frames, height, width, chunk):
    model, ours = published
    _, rows, columns = ours.strides
    height, width = height // rows * rows, width // columns * columns
    video = np.random.default_rng(0).uniform(-1, 1, (1, 3, frames, height, width)).astype(np.float32)
    with torch.no_grad():
        latents = model.encode(torch.from_numpy(video)).latent_dist.mode()
        expected = model.decode(latents).sample.numpy()
    scaled = (np.moveaxis(latents.numpy(), 1, -1) - np.float32(MEAN)) / np.float32(STD)
    np.testing.assert_allclose(
        _run(ours.encoder, ours.weights, np.moveaxis(video, 1, -1), 4 * chunk), scaled, rtol=0, atol=1e-4
    )
    found = np.clip(_run(ours.decoder, ours.weights, scaled, chunk), -1, 1)
    np.testing.assert_allclose(found, np.moveaxis(expected, 1, -1), rtol=0, atol=1e-4)


def _run(network, weights, x, size):
    """The network over the first frame and then parts of `size` frames."""
    out, past = network(weights, x[:, :1], None)
    parts = [out]
    for start in range(1, x.shape[1], size):
        out, past = network(weights, x[:, start : start + size], past)
        parts.append(out)
    return np.concatenate(parts, axis=1)
