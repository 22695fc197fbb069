"""The Wan transformer on packed rows against that of diffusers, a clip at a time, on the same random weights."""

import jax
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from flax import nnx

from vdit.batch import Example, RowShape, pack_row, stack_rows, unpack_row
from vdit.config import MeshConfig, ModelConfig
from vdit.models.transformer import Interface
from vdit.models.wan_dit import WanTransformer
from vdit.models.wan_weights import open_published, read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify, unpatchify

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


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_packed_rows_give_what_diffusers_gives_for_every_clip(theirs, tmp_path, backend):
    theirs.save_pretrained(tmp_path)
    clips = [example(i, *clip[:4]) for i, clip in enumerate(CLIPS)]
    config, *_ = read_config(tmp_path / "config.json", ModelConfig(family="wan", attention=backend, attention_block=16))
    times_BN = np.zeros((2, 4), np.float32)
    times_BN[:, :2] = np.array([clip[4] for clip in CLIPS]).reshape(2, 2)
    rows = [pack_row(clips[i : i + 2], RowShape(640, 4, 600), PATCH) for i in (0, 2)]
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with use_mesh(mesh), open_published(tmp_path, config, INTERFACE) as get:
        model = WanTransformer(config, INTERFACE, nnx.Rngs(params=0))
        graph, params = nnx.split(model)
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jax.device_put(
                get(jax.tree_util.keystr(path[:-1], simple=True, separator=".")), leaf.sharding
            ),
            params,
        )
        batch = to_global(stack_rows(rows), mesh)
        index = to_global(np.maximum(stack_rows(rows).segments_BL - 1, 0), mesh)
        run = jax.jit(
            lambda params, batch, times, index, null: nnx.merge(graph, params)(
                batch.patches_BLP, times, index, batch, null
            )
        )
        out = np.asarray(run(params, batch, to_global(times_BN, mesh), index, to_global(np.zeros((2, 4), bool), mesh)))
    found = [patches for row in range(2) for patches in unpack_row(out[row], rows[row])]
    for clip, (*_, time), ours in zip(clips, CLIPS, found, strict=True):
        want = expected(theirs, clip, time)
        assert np.abs(want).max() > 0.5
        np.testing.assert_allclose(ours, want, rtol=0, atol=1e-3)
        print(np.abs(ours - want).max(), np.abs(want).max())
