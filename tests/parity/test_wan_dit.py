"""The Wan transformer on packed rows against that of diffusers, a clip at a time, on the same random weights."""

import jax
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from flax import nnx

from vdit.batch import Example, RowShape, pack_row, stack_rows, unpack_row
from vdit.config import Config, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.models.wan.wan_weights import read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify, unpatchify
from vdit.training.initial import load_params
from vdit.training.step import abstract_state

CHANNELS, TEXT, PATCH = 4, 12, Patch(1, 2, 2)
INTERFACE = Interface(PATCH.size(CHANNELS), TEXT)
CLIPS = ((3, 4, 6, 5, 0.3), (1, 8, 4, 0, 0.9), (6, 2, 4, 40, 0.051), (2, 10, 6, 512, 1.0))
"""(latent frames, height, width, caption tokens, time)."""


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    model = WanTransformer3DModel(
        num_attention_heads=3,
        attention_head_dim=20,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        text_dim=TEXT,
        ffn_dim=88,
        num_layers=3,
    )
    for parameter in model.parameters():  # fresh ones are so small that faults would hide in the tolerance
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def example(number: int, frames: int, height: int, width: int, words: int) -> Example:
    rng = np.random.default_rng(number)
    latents = rng.normal(size=(frames, height, width, CHANNELS)).astype(np.float32)
    text = rng.normal(size=(words, TEXT)).astype(np.float32)
    return Example(number, patchify(latents, PATCH), PATCH.grid(frames, height, width), 4.0, text)


def expected(model, clip: Example, time: float) -> np.ndarray:
    latents = torch.from_numpy(unpatchify(clip.patches_LP, clip.grid, PATCH)).permute(3, 0, 1, 2)[None]
    text = torch.zeros(1, 512, TEXT)
    text[0, : len(clip.text_ME)] = torch.from_numpy(clip.text_ME)
    with torch.no_grad():
        out = model(latents, torch.tensor([1000 * time]), text).sample
    return patchify(out[0].permute(1, 2, 3, 0).numpy(), PATCH)


@pytest.fixture(scope="module")
def published(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    theirs.save_pretrained(folder)
    return folder


def predictions(folder, clips: list[Example], times: list[float], backend: str) -> list[np.ndarray]:
    """Ours for every clip, two clips a row."""
    model = read_config(folder / "config.json", ModelConfig(family="wan", attention=backend, attention_block=16)).model
    config, mesh = Config(model=model), make_mesh(MeshConfig(), jax.devices()[:1])
    rows = stack_rows([pack_row(clips[i : i + 2], RowShape(640, 4, 600), PATCH) for i in range(0, len(clips), 2)])
    times_BK = np.zeros((len(clips) // 2, 4), np.float32)
    times_BK[:, :2] = np.reshape(times, (-1, 2))
    index_BL, null_BN = np.maximum(rows.segments_BL - 1, 0), np.zeros_like(times_BK, bool)
    with use_mesh(mesh):
        graph, like = abstract_state(config, INTERFACE, mesh)
        params = load_params(str(folder), config, INTERFACE, like.params)

        @jax.jit
        def run(params, batch, times_BK, index_BL, null_BN):
            return nnx.merge(graph, params)(batch.patches_BLP, times_BK, index_BL, batch, null_BN)

        out = np.asarray(run(params, *(to_global(x, mesh) for x in (rows, times_BK, index_BL, null_BN))))
    return [patches for b in range(len(out)) for patches in unpack_row(out[b], rows.map(lambda x, b=b: x[b]))]


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_packed_rows_give_what_diffusers_gives_for_every_clip(theirs, published, backend):
    clips = [example(i, *clip[:4]) for i, clip in enumerate(CLIPS)]
    times = [clip[4] for clip in CLIPS]
    for clip, time, found in zip(clips, times, predictions(published, clips, times, backend), strict=True):
        want = expected(theirs, clip, time)
        assert np.abs(want).max() > 0.5
        np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)
