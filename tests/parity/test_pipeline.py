"""Every network of a Wan pipeline's folder against PyTorch's: of random ones, or of `make parity WEIGHTS=FOLDER`."""

import dataclasses
import os
from pathlib import Path

import jax
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from flax import nnx
from models.test_wan_pipeline import MODEL, write_pipeline
from models.test_wan_vae import CONFIG_22
from transformers import CLIPVisionModel, UMT5EncoderModel

from vdit.batch import Example, RowShape, pack_row, stack_rows
from vdit.config import Config, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.models.autoencoders.wan_vae import load_wan_vae
from vdit.models.text import t5
from vdit.models.wan.clip import features, load_image_encoder
from vdit.models.wan.wan_image import IMAGE_TOKENS
from vdit.models.wan.wan_pipeline import EXPERTS, check_experts, read_pipeline
from vdit.models.wan.wan_weights import read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify_apart, unpatchify
from vdit.training.initial import load_params
from vdit.training.step import abstract_state

TWO = {"experts": EXPERTS, "boundary_ratio": 0.9}
RANDOM = {
    "TI2V": {"vae": CONFIG_22, "expand_timesteps": True},
    "I2V, Wan 2.1": {
        "model": dataclasses.replace(MODEL, condition=24, image=8),
        "_class_name": "WanImageToVideoPipeline",
    },
    "I2V, Wan 2.2": {
        "model": dataclasses.replace(MODEL, condition=24),
        "_class_name": "WanImageToVideoPipeline",
        **TWO,
    },
    "T2V, Wan 2.2": TWO,
}
GIVEN = os.environ.get("WEIGHTS", "")


@pytest.fixture(scope="module", params=[GIVEN] if GIVEN else RANDOM)
def folder(request, tmp_path_factory) -> Path:
    if GIVEN:
        return Path(GIVEN)
    return write_pipeline(tmp_path_factory.mktemp("wan") / "pipeline", **RANDOM[request.param])


def assert_near(found, wanted, tolerance: float) -> None:
    """To a share of what is wanted, where that is over 1."""
    wanted = np.asarray(wanted)
    assert wanted.std() > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()))


def test_autoencoder(folder):
    theirs, ours = AutoencoderKLWan.from_pretrained(folder / "vae"), load_wan_vae(str(folder), np.float32)
    _, height, width = ours.strides
    video_BCTYX = np.random.default_rng(0).uniform(-1, 1, (1, 3, 5, 2 * height, 3 * width)).astype(np.float32)
    mean, std = (np.array(values, np.float32) for values in (theirs.config.latents_mean, theirs.config.latents_std))
    with torch.no_grad():
        latents = theirs.eval().encode(torch.from_numpy(video_BCTYX)).latent_dist.mode()
        wanted = np.moveaxis(theirs.decode(latents).sample.numpy(), 1, -1)
    scaled = (np.moveaxis(latents.numpy(), 1, -1) - mean) / std
    assert_near(streamed(ours.encoder, ours.weights, np.moveaxis(video_BCTYX, 1, -1)), scaled, 1e-4)
    assert_near(np.clip(streamed(ours.decoder, ours.weights, scaled), -1, 1), wanted, 1e-4)


def streamed(network, weights, x_BTYXC: np.ndarray) -> np.ndarray:
    """What a network gives for the first frame and then for the rest."""
    first, past = network(weights, x_BTYXC[:, :1], None)
    return np.concatenate([first, network(weights, x_BTYXC[:, 1:], past)[0]], 1)


@pytest.mark.parametrize("expert", EXPERTS)
def test_transformer(folder, expert):
    pipeline = read_pipeline(folder)
    check_experts(pipeline)
    if expert == EXPERTS[1] and pipeline.boundary is None:
        assert not (folder / expert).exists()
        return
    published = read_config(folder / expert / "config.json", ModelConfig(family="wan"))
    model, patch = published.model, Patch(*published.patch)
    known = published.channels - published.generated
    latents_TYXC = np.random.default_rng(0).normal(size=(3, 8, 6, published.channels)).astype(np.float32)
    features_MD, text_ME = (np.random.default_rng(1).normal(size=(n, published.text)) for n in (IMAGE_TOKENS, 20))
    features_MD[:, model.image :] = 0
    caption_ME = np.concatenate([features_MD[: IMAGE_TOKENS if model.image else 0], text_ME]).astype(np.float32)
    grid = patch.grid(*latents_TYXC.shape[:3])
    clip = Example(1, patchify_apart(latents_TYXC, patch, known), grid, 4.0, caption_ME)
    time, given_L = 0.93, (np.arange(grid.tokens) < grid.y * grid.x) & pipeline.time_per_token
    times = torch.from_numpy(np.where(given_L, 0, 1000 * time).astype(np.float32))[None]

    theirs = WanTransformer3DModel.from_pretrained(folder / expert, torch_dtype=torch.float32).eval()
    text = torch.zeros(1, 512, published.text)
    text[0, :20] = torch.from_numpy(text_ME)
    image = torch.from_numpy(features_MD[None, :, : model.image].astype(np.float32)) if model.image else None
    with torch.no_grad():
        noised = torch.from_numpy(latents_TYXC).permute(3, 0, 1, 2)[None]
        wanted = theirs(noised, times if pipeline.time_per_token else times[:, -1], text, image).sample[0]
    del theirs

    rows = stack_rows([pack_row([clip], RowShape(384, 2, 320), patch)])
    index_BL = np.zeros((1, 384), np.int32)
    index_BL[0, np.flatnonzero(rows.is_patch_BL[0])[given_L]] = 1
    config, mesh = Config(model=model), make_mesh(MeshConfig(), jax.devices()[:1])
    interface = Interface(patch.size(published.channels), published.text)
    with use_mesh(mesh):
        graph, like = abstract_state(config, interface, mesh)
        params = load_params(str(folder / expert), config, interface, like.params)

        @jax.jit
        def run(params, times_BK, index_BL, batch, null_BN):
            noised_BLP = batch.patches_BLP[..., : patch.size(published.generated)]
            return nnx.merge(graph, params)(noised_BLP, times_BK, index_BL, batch, null_BN)

        inputs = np.array([[time, 0]], np.float32), index_BL, rows, np.zeros((1, 2), bool)
        found_LP = np.asarray(run(params, *(to_global(x, mesh) for x in inputs)))[0][rows.is_patch_BL[0]]
    assert_near(unpatchify(found_LP, grid, patch), wanted.permute(1, 2, 3, 0).numpy(), 1e-3)


def test_text_encoder(folder):
    config = t5.T5Config.read(folder / "text_encoder" / "config.json")
    ids = np.random.default_rng(0).integers(3, config.vocabulary, (1, 12)).astype(np.int32)
    theirs = UMT5EncoderModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = theirs(torch.from_numpy(ids).long()).last_hidden_state.numpy()
    del theirs
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    weights = t5.read_weights(folder / "text_encoder", config, mesh, np.float32)
    with jax.set_mesh(mesh):
        found = jax.jit(lambda w, ids, lengths: t5.encode(w, ids, lengths, config))(
            weights, ids, np.array([12], np.int32)
        )
    assert_near(np.asarray(found), wanted, 1e-3)


def test_image_encoder(folder):
    """It is there if a transformer attends to its features."""
    model = read_config(folder / EXPERTS[0] / "config.json", ModelConfig(family="wan")).model
    there = folder / "image_encoder"
    assert there.exists() or not model.image
    if not model.image:
        return
    ours = load_image_encoder(there)
    assert ours.config.width == model.image
    pixels_BYXC = np.random.default_rng(0).normal(size=(1, ours.config.side, ours.config.side, 3)).astype(np.float32)
    theirs = CLIPVisionModel.from_pretrained(there, torch_dtype=torch.float32).eval()
    with torch.no_grad():
        seen = theirs(torch.from_numpy(pixels_BYXC).permute(0, 3, 1, 2), output_hidden_states=True)
    found = jax.jit(lambda weights, x: features(weights, x, ours.config))(ours.weights, pixels_BYXC)
    assert_near(np.asarray(found), seen.hidden_states[-2].numpy(), 1e-3)
