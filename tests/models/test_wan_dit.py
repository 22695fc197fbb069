"""The Wan transformer on packed rows; tests/parity/test_wan_dit.py compares it with the published implementation."""

import dataclasses
import functools
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from flax import nnx
from published_wan import write_published
from safetensors.numpy import load_file, save_file
from small_model import (
    INTERFACE,
    assert_same_gradients,
    clips,
    initial,
    inputs_function,
    loss_and_gradients,
    one_device,
    pack,
    shard_like,
    stirred,
)

from vdit import flops
from vdit.config import Config, DiffusionConfig, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.errors import UserError
from vdit.models.wan import wan_dit
from vdit.models.wan.wan_dit import rotary_frequencies
from vdit.models.wan.wan_weights import read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.training.initial import load_params, named
from vdit.training.step import abstract_state, consumed

MODEL = ModelConfig(
    family="wan", width=32, depth=2, head_width=16, base_width=32, feed_forward=2.5, prediction="v", attention_block=8
)
CONFIG = Config(model=MODEL, diffusion=DiffusionConfig(caption_dropout=0.3))
CLIPS = clips()


def config_of(**changes):
    return dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, **changes))


ROWS = 6  # all tests have as many, so that they share a program


@functools.cache
def packed():
    return loss_and_gradients(pack([CLIPS], count=ROWS), CONFIG)


def test_packed_rows_equal_rows_of_one_clip():
    loss, gradients = packed()
    alone, alone_gradients = loss_and_gradients(pack([[clip] for clip in CLIPS], count=ROWS), CONFIG)
    assert loss == pytest.approx(alone, rel=1e-6)
    assert_same_gradients(gradients, alone_gradients, 1e-4)


def test_backends_agree():
    loss, gradients = packed()
    plain, plain_gradients = loss_and_gradients(pack([CLIPS], count=ROWS), config_of(attention="reference"))
    assert loss == pytest.approx(plain, rel=1e-6)
    assert_same_gradients(gradients, plain_gradients, 1e-4)


def test_bfloat16_is_near_float32():
    """As on TPU, where activations are bfloat16 between the layers."""
    loss, gradients = packed()
    rounded, rounded_gradients = loss_and_gradients(pack([CLIPS], count=ROWS), config_of(dtype="bfloat16"))
    assert rounded == pytest.approx(loss, rel=0.02) and rounded != loss
    for exact, near in zip(*map(jax.tree.leaves, (gradients, rounded_gradients)), strict=True):
        exact, near = (np.asarray(x, np.float64) for x in (exact, near))
        assert np.linalg.norm(near - exact) <= 0.1 * np.linalg.norm(exact) + 1e-6


@pytest.mark.parametrize(
    "layout", [MeshConfig(1, 2, 2, 2), pytest.param(MeshConfig(2, 1, 2, 2), marks=pytest.mark.nightly)], ids=str
)
def test_sharded_equals_one_device(layout):
    rows = pack([CLIPS, CLIPS[1:3], CLIPS[2:], CLIPS[:2], CLIPS[3:]], count=ROWS)
    loss, gradients = loss_and_gradients(rows, CONFIG)
    sharded, sharded_gradients = loss_and_gradients(rows, config_of(remat="blocks"), make_mesh(layout))
    assert sharded == pytest.approx(loss, rel=1e-6)
    assert_same_gradients(sharded_gradients, gradients, 1e-4)


def test_what_is_known_of_a_clip_conditions_it_and_an_image_stands_before_its_words(monkeypatch):
    """Image to video, two tokens of an image a caption; of an example with fewer they are all that it has."""
    monkeypatch.setattr(wan_dit, "IMAGE_TOKENS", 2)
    config = dataclasses.replace(config_of(condition=40, image=3), diffusion=DiffusionConfig(caption_dropout=0.0))
    clips = [dataclasses.replace(clip, patches_LP=clip.patches_LP / np.float32(100) - 1) for clip in CLIPS]
    loss, gradients = loss_and_gradients(pack([clips], count=ROWS), config)
    alone, alone_gradients = loss_and_gradients(pack([[clip] for clip in clips], count=ROWS), config)
    assert loss == pytest.approx(alone, rel=1e-6)
    assert_same_gradients(gradients, alone_gradients, 1e-4)
    shapes = {name: value.shape for name, value in gradients.items() if "blocks" not in name and "image" not in name}
    assert [shape for name, shape in shapes.items() if "patch_in" in name] == [(96, 32)]
    assert [shape for name, shape in shapes.items() if "out_bias" in name] == [(56,)]


def test_the_output_is_divided_by_the_width():
    """muP: what the last matrix adds up grows with the width; at the base width, as published, nothing changes."""
    batch, found = pack([CLIPS], count=ROWS), []
    for base_width in (32, 8):
        graph, params = stirred(config_of(base_width=base_width))
        with use_mesh(one_device()):
            placed = to_global(batch, one_device())
            q = inputs_function(CONFIG)(placed)
            apply = jax.jit(
                lambda p, b, q, g=graph: nnx.merge(g, p)(q.noised_BLP, q.times_BK, q.time_index_BL, b, q.null_BN)
            )
            out_BLP = apply(shard_like(params, config_of()), placed, q)
        found.append((np.asarray(out_BLP) - params["out_bias"][...])[batch.is_patch_BL])
    np.testing.assert_allclose(found[1], found[0] / 4, rtol=1e-4, atol=1e-5)


def test_a_head_turns_with_time_row_and_column():
    assert [len(part) for part in rotary_frequencies(128)] == [22, 21, 21]  # 44, 42 and 42 of 128 columns


@pytest.mark.parametrize("changes", [{}, {"condition": 40, "image": 3}], ids=["text", "image"])
def test_the_parameters_are_those_of_the_matrices(changes):
    config = config_of(**changes)
    planned = flops.parameters(flops.shape_of(config.model, *dataclasses.astuple(INTERFACE)))
    params = jax.tree.leaves(initial(config)[1], is_leaf=lambda node: isinstance(node, nnx.Variable))
    matrices = sum(param.get_value().size for param in params if param.get_metadata()["role"] != "vector")
    assert planned.total == matrices + MODEL.depth * 6 * MODEL.width


def test_the_arithmetic_is_that_of_the_matrices():
    shape = flops.shape_of(MODEL, *dataclasses.astuple(INTERFACE))
    # Two patches, a caption of three tokens, one time: multiply-adds by hand.
    d, f, p, e, n, m = 32, 80, INTERFACE.patch, INTERFACE.text, 2, 3
    block = n * (6 * d * d + 2 * d * f) + m * 2 * d * d + 2 * d * (n * n + n * (m + 1))
    by_hand = 2 * block + n * 2 * p * d + m * (e * d + d * d) + 256 * d + 7 * d * d
    assert flops.forward_multiply_adds(shape, n, m) == by_hand
    with use_mesh(one_device()):
        counted = consumed(to_global(pack([CLIPS]), one_device()), CONFIG)
    sizes = [(clip.grid.tokens, len(clip.text_ME)) for clip in CLIPS]
    assert counted["attention_pairs"] == sum(n * n + n * (m + 1) for n, m in sizes)


CHANNELS, PATCH, TEXT = 3, (1, 2, 4), 5
OURS = Interface(CHANNELS * int(np.prod(PATCH)), TEXT)


def write(folder, dtype=np.float32, drop="", add="", **values):
    """Random weights in the published layout."""
    return write_published(folder, MODEL, (CHANNELS, PATCH, TEXT), dtype, drop, add, **values)


def load(folder, interface=OURS):
    """The parameters of a model that starts from a folder."""
    model = read_config(folder / "config.json", ModelConfig(family="wan")).model
    config = Config(model=model)
    with use_mesh(one_device()):
        _, like = abstract_state(config, interface, one_device())
        return named(load_params(str(folder), config, interface, like.params))


def test_published_weights_in_bfloat16_and_in_several_files(tmp_path):
    whole = load(write(tmp_path / "whole"))
    folder = write(tmp_path / "parts" / "transformer", ml_dtypes.bfloat16)
    tensors = load_file(folder / "diffusion_pytorch_model.safetensors")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    files = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensor for name, tensor in tensors.items() if files[name] == file}, folder / file)
    index = {"weight_map": files}
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    for name, array in load(folder).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, whole[name].astype(ml_dtypes.bfloat16).astype(np.float32), name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "blocks.1.attn2.norm_k.weight"}, r"has no tensor blocks.1.attn2.norm_k.weight \[32\]"),
        ({"add": "blocks.0.attn2.add_k_proj.weight"}, "add_k_proj.weight .* that the model does not have"),
        ({"ffn_dim": 96}, r"tensor blocks.0.ffn.net.0.proj.weight is \[80, 32\], the model's is \[96, 32\]"),
        (
            {"image_dim": 1280},
            "config.json is not the config of a Wan 2.1 or 2.2 transformer.*image_dim 1280 with added",
        ),
        ({"in_channels": 5}, "in_channels 5, out_channels 3"),
        ({"pos_embed_seq_len": 514}, "pos_embed_seq_len"),
        ({"_class_name": "WanVACETransformer3DModel"}, "WanVACETransformer3DModel"),
        ({"patch_size": (2, 2, 4)}, "patch_size"),
        ({"num_layers": None}, "config.json is not the config of a Wan"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, changes, message):
    with pytest.raises(UserError, match=message) as error:
        load(write(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_refused(tmp_path):
    file = write(tmp_path) / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="diffusion_pytorch_model.safetensors is not a readable"):
        load(tmp_path)


def test_a_data_set_of_other_latents_or_captions_is_refused(tmp_path):
    with pytest.raises(
        UserError, match="takes patches of 2x4 latents of 3 channels and captions of 5 features.*has 48"
    ):
        load(write(tmp_path), Interface(48, 5))
