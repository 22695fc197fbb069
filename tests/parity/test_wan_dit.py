"""The Wan transformers on packed rows against that of diffusers, a clip at a time, on the same random weights."""

import dataclasses
import functools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from flax import nnx
from safetensors.torch import save_file

from vdit.batch import Example, RowShape, pack_row, stack_rows, unpack_row
from vdit.config import Config, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.models.wan.wan_image import IMAGE_TOKENS
from vdit.models.wan.wan_weights import MASK_CHANNELS, read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify, unpatchify
from vdit.training.initial import load_params, named
from vdit.training.step import abstract_state

CHANNELS, TEXT, PATCH = 4, 12, Patch(1, 2, 2)
CLIPS = ((3, 4, 6, 5, 0.3), (1, 8, 4, 0, 0.9), (6, 2, 4, 40, 0.051), (2, 10, 6, 512, 1.0))
"""(latent frames, height, width, caption tokens, time)."""
SIZES = {"num_attention_heads": 3, "attention_head_dim": 20, "out_channels": CHANNELS, "text_dim": TEXT}
SIZES |= {"in_channels": CHANNELS, "ffn_dim": 88, "num_layers": 3}


@dataclasses.dataclass(frozen=True)
class Case:
    """A published transformer, and what it is compared on.

    Attributes:
      theirs: the network of diffusers.
      folder: with its weights.
      given: whether the first latent frame of every clip longer than one is given, at time 0.
      known: channels of latents that say what is known of the clip.
      image: width of the features of an image.
    """

    theirs: WanTransformer3DModel
    folder: Path
    given: bool
    known: int = 0
    image: int = 0


KNOWN = CHANNELS + MASK_CHANNELS
IMAGE = {"image_dim": 8, "added_kv_proj_dim": 60}
CASES = {
    "text": ({}, {}),
    "a time for every token": ({}, {"given": True}),
    "image, Wan 2.1": ({"in_channels": CHANNELS + KNOWN, **IMAGE}, {"known": KNOWN, "image": 8}),
    "image, Wan 2.2": ({"in_channels": CHANNELS + KNOWN}, {"known": KNOWN}),
}


@pytest.fixture(scope="module", params=CASES)
def case(request, tmp_path_factory) -> Case:
    sizes, about = CASES[request.param]
    torch.manual_seed(0)
    model = WanTransformer3DModel(**{**SIZES, **sizes})
    for parameter in model.parameters():  # fresh ones are so small that faults would hide in the tolerance
        parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("wan")
    model.eval().save_pretrained(folder)
    return Case(model, folder, **{"given": False, **about})


@functools.cache
def example(number: int, known: int = 0, image: int = 0) -> Example:
    """A clip; what is known of it comes last in its patches, and the image's features first in its caption."""
    frames, height, width, words, _ = CLIPS[number]
    rng = np.random.default_rng(number)
    text = rng.normal(size=(words, TEXT)).astype(np.float32)
    sizes = [CHANNELS, known]
    parts = [rng.normal(size=(frames, height, width, size)).astype(np.float32) for size in sizes]
    features = np.zeros((IMAGE_TOKENS if image else 0, TEXT), np.float32)
    features[:, :image] = rng.normal(size=(len(features), image))
    patches = np.concatenate([patchify(part, PATCH) for part in parts], -1)
    return Example(number, patches, PATCH.grid(frames, height, width), 4.0, np.concatenate([features, text]))


def given_of(case: Case, clip: Example) -> np.ndarray:
    """True for the patches at time 0, given_L."""
    return (np.arange(clip.grid.tokens) < clip.grid.y * clip.grid.x) & (case.given and clip.grid.t > 1)


def weights_of(number: int) -> np.ndarray:
    """What every number of the output is multiplied by, in the sum whose gradient is compared."""
    shape = len(example(number).patches_LP), PATCH.size(CHANNELS)
    return np.random.default_rng(100 + number).normal(size=shape).astype(np.float32)


def as_latents(patches_LP: np.ndarray, number: int) -> torch.Tensor:
    """(1, channels, frames, height, width) of what is generated, then of what is known."""
    size = PATCH.size(CHANNELS)
    parts = [part for part in (patches_LP[:, :size], patches_LP[:, size:]) if part.shape[1]]
    videos = [unpatchify(np.ascontiguousarray(part), example(number).grid, PATCH) for part in parts]
    return torch.from_numpy(np.concatenate(videos, -1)).permute(3, 0, 1, 2)[None]


def output_of(case: Case, number: int) -> torch.Tensor:
    """Their output for a clip."""
    clip, time = example(number, case.known, case.image), CLIPS[number][4]
    start = IMAGE_TOKENS if case.image else 0
    text = torch.zeros(1, 512, TEXT)
    text[0, : len(clip.text_ME) - start] = torch.from_numpy(clip.text_ME[start:])
    image = torch.from_numpy(clip.text_ME[None, :start, : case.image]) if case.image else None
    times = torch.tensor([1000 * time])
    if case.given:
        times = torch.from_numpy(np.where(given_of(case, clip), 0, 1000 * time).astype(np.float32))[None]
    return case.theirs(as_latents(clip.patches_LP, number), times, text, image).sample


def ours(case: Case, backend: str, dtype: str = "float32"):
    """(outputs of every clip, gradients by name); two clips a row."""
    model = ModelConfig(family="wan", attention=backend, attention_block=16, dtype=dtype)
    published = read_config(case.folder / "config.json", model)
    interface = Interface(PATCH.size(published.channels), TEXT)
    config, mesh = Config(model=published.model), make_mesh(MeshConfig(), jax.devices()[:1])
    pairs, shape = ((0, 1), (2, 3)), RowShape(1152, 4, 1088) if case.image else RowShape(640, 4, 600)
    clips = [[example(i, case.known, case.image) for i in pair] for pair in pairs]
    rows = stack_rows([pack_row(row, shape, PATCH) for row in clips])
    weighted = [
        [dataclasses.replace(clip, patches_LP=weights_of(i)) for i, clip in zip(pair, row, strict=True)]
        for pair, row in zip(pairs, clips, strict=True)
    ]
    weights_BLP = stack_rows([pack_row(row, shape, PATCH) for row in weighted]).patches_BLP
    times_BK = np.zeros((len(pairs), 5), np.float32)  # the last is that of given patches
    times_BK[:, :2] = [[CLIPS[i][4] for i in pair] for pair in pairs]
    index_BL, null_BN = np.maximum(rows.segments_BL - 1, 0), np.zeros((len(pairs), 4), bool)
    for b, pair in enumerate(pairs):
        for n, i in enumerate(pair):
            slots_L = np.flatnonzero(rows.is_patch_BL[b] & (rows.segments_BL[b] == n + 1))
            index_BL[b, slots_L[given_of(case, example(i))]] = 4
    with use_mesh(mesh):
        graph, like = abstract_state(config, interface, mesh)
        params = load_params(str(case.folder), config, interface, like.params)

        @jax.jit
        def run(params, weights_BLP, *inputs):
            def weighted_sum(params):
                rows, times_BK, index_BL, null_BN = inputs
                noised_BLP = rows.patches_BLP[..., : weights_BLP.shape[-1]]
                out_BLP = nnx.merge(graph, params)(noised_BLP, times_BK, index_BL, rows, null_BN)
                return jnp.sum(out_BLP * weights_BLP), out_BLP

            return jax.grad(weighted_sum, has_aux=True)(params)

        inputs = (to_global(x, mesh) for x in (weights_BLP, rows, times_BK, index_BL, null_BN))
        gradients, out_BLP = run(params, *inputs)
    outputs = [patches for b in range(len(pairs)) for patches in unpack_row(out_BLP[b], rows.map(lambda x, b=b: x[b]))]
    return outputs, {name: np.asarray(leaf, np.float32) for name, leaf in named(gradients).items()}


@pytest.fixture(scope="module")
def theirs(case, tmp_path_factory):
    """(their outputs of every clip, the gradients of the weighted sum of all of them by our names)."""
    case.theirs.zero_grad()
    outputs = []
    for number in range(len(CLIPS)):
        out = output_of(case, number)
        (out * as_latents(weights_of(number), number)).sum().backward()
        outputs.append(patchify(out[0].detach().permute(1, 2, 3, 0).numpy(), PATCH))
    # Gradients lie as the weights do, so they are read in the same way.
    folder = tmp_path_factory.mktemp("gradients")
    shutil.copy(case.folder / "config.json", folder)
    gradients = {name: parameter.grad.contiguous() for name, parameter in case.theirs.named_parameters()}
    save_file(gradients, folder / "model.safetensors")
    published = read_config(folder / "config.json", ModelConfig(family="wan"))
    config, interface = Config(model=published.model), Interface(PATCH.size(published.channels), TEXT)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with use_mesh(mesh):
        like = abstract_state(config, interface, mesh)[1].params
        return outputs, {k: np.asarray(v) for k, v in named(load_params(str(folder), config, interface, like)).items()}


@pytest.mark.parametrize("backend", ["chunked", "reference"])
def test_packed_rows_give_values_and_gradients_of_diffusers(case, theirs, backend):
    found, gradients = ours(case, backend)
    wanted, wanted_gradients = theirs
    for output, want in zip(found, wanted, strict=True):
        assert np.abs(want).max() > 0.5
        np.testing.assert_allclose(output, want, rtol=0, atol=1e-3)
    assert gradients.keys() == wanted_gradients.keys()
    for name, want in wanted_gradients.items():
        np.testing.assert_allclose(gradients[name], want, rtol=0, atol=1e-3 * np.abs(want).max(), err_msg=name)


def relative(found: list[np.ndarray], wanted: list[np.ndarray]) -> float:
    """The norm of the difference over that of what is wanted."""
    difference, size = (
        np.concatenate([np.ravel(x) for x in arrays])
        for arrays in ([a - b for a, b in zip(found, wanted, strict=True)], wanted)
    )
    return float(np.linalg.norm(difference) / np.linalg.norm(size))


def test_in_bfloat16_they_are_near(case, theirs):
    """Of the same weights, which diffusers multiplies in float32."""
    found, gradients = ours(case, "chunked", "bfloat16")
    wanted, wanted_gradients = theirs
    assert 1e-4 < relative(found, wanted) < 2e-2
    assert relative(list(gradients.values()), [wanted_gradients[name] for name in gradients]) < 2e-2
