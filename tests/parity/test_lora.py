"""Adapters both ways: ours loaded by diffusers, PEFT's read by us, on a Wan transformer of random weights."""

import jax
import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from flax import nnx
from peft import LoraConfig as PeftConfig
from peft.utils import get_peft_model_state_dict

from vdit.batch import Example, RowShape, pack_row, stack_rows, unpack_row
from vdit.config import Config, MeshConfig, ModelConfig
from vdit.data import Interface
from vdit.lora_config import LoraConfig
from vdit.models.adapters import add_all
from vdit.models.lora_files import layers_of, read_lora, write_lora
from vdit.models.wan.wan_weights import read_config
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.patches import Patch, patchify
from vdit.training.initial import load_params
from vdit.training.step import abstract_state

CHANNELS, TEXT, PATCH = 4, 12, Patch(1, 2, 2)
SIZE, WORDS, TIME = (3, 4, 6), 5, 0.3
TARGETS = ["to_q", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
"""All attention and feed-forward layers but those of keys."""


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
        num_layers=2,
    )
    for parameter in model.parameters():  # fresh ones are so small that faults would hide in the tolerance
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def published(theirs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan")
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def example():
    """(latents, the same with a caption as an example)."""
    rng = np.random.default_rng(0)
    latents, text = (rng.normal(size=shape).astype(np.float32) for shape in ((*SIZE, CHANNELS), (WORDS, TEXT)))
    return latents, Example(1, patchify(latents, PATCH), PATCH.grid(*SIZE), 4.0, text)


def expected(model, example) -> np.ndarray:
    latents, packed = example
    text = torch.zeros(1, 512, TEXT)
    text[0, :WORDS] = torch.from_numpy(packed.text_ME)
    with torch.no_grad():
        out = model(torch.from_numpy(latents).permute(3, 0, 1, 2)[None], torch.tensor([1000 * TIME]), text).sample
    return patchify(out[0].permute(1, 2, 3, 0).numpy(), PATCH)


def adapted(folder, example, adapters) -> np.ndarray:
    """Our prediction with adapters added to the published weights."""
    model = read_config(folder / "config.json", ModelConfig(family="wan", attention="reference")).model
    config, mesh = Config(model=model), make_mesh(MeshConfig(), jax.devices()[:1])
    interface = Interface(PATCH.size(CHANNELS), TEXT)
    rows = stack_rows([pack_row([example[1]], RowShape(32, 1, 8), PATCH)])
    index_BL = np.maximum(rows.segments_BL - 1, 0)
    with use_mesh(mesh):
        graph, like = abstract_state(config, interface, mesh)
        params = add_all(load_params(str(folder), config, interface, like.params), adapters, 1.0)

        @jax.jit
        def run(params, batch, times_BK, index_BL, null_BN):
            return nnx.merge(graph, params)(batch.patches_BLP, times_BK, index_BL, batch, null_BN)

        inputs = rows, np.full((1, 1), TIME, np.float32), index_BL, np.zeros((1, 1), bool)
        out = np.asarray(run(params, *(to_global(x, mesh) for x in inputs)))
    return unpack_row(out[0], rows.map(lambda x: x[0]))[0]


@pytest.mark.parametrize("how", ["diffusers", "peft"])
def test_theirs_is_read(theirs, published, example, tmp_path, how):
    """Rank 3 and alpha 12."""
    torch.manual_seed(1)
    theirs.add_adapter(PeftConfig(r=3, lora_alpha=12, target_modules=TARGETS, init_lora_weights=False))
    try:
        want = expected(theirs, example)
        if how == "diffusers":
            state = get_peft_model_state_dict(theirs)
            about = theirs.peft_config["default"].to_dict()
            WanPipeline.save_lora_weights(tmp_path, state, transformer_lora_adapter_metadata=about)
        else:
            theirs.save_lora_adapter(tmp_path)
            (tmp_path / "pytorch_lora_weights.safetensors").rename(tmp_path / "adapter_model.safetensors")
            theirs.peft_config["default"].save_pretrained(tmp_path)
    finally:
        theirs.delete_adapters("default")
    plain = expected(theirs, example)
    model = read_config(published / "config.json", ModelConfig(family="wan")).model
    found = adapted(published, example, read_lora(tmp_path, model))
    assert np.abs(want - plain).max() > 0.1
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)


def test_ours_is_loaded(theirs, published, example, tmp_path):
    lora = LoraConfig(rank=3, alpha=6.0)
    model = read_config(published / "config.json", ModelConfig(family="wan")).model
    rng = np.random.default_rng(0)
    adapters = {}
    for name in lora.chosen("wan"):
        layers = layers_of(model)[name]
        apart = (len(layers.names),) if len(layers.names) > 1 else ()
        shapes = (*layers.inputs, *apart, 3), (3, *apart, *layers.outputs)
        adapters[name] = tuple(0.2 * rng.normal(size=(model.depth, *shape)).astype(np.float32) for shape in shapes)
    write_lora(tmp_path, adapters, lora, model)
    scaled = {name: (a, lora.scale * b) for name, (a, b) in adapters.items()}
    found = adapted(published, example, scaled)

    state, metadata = WanPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    WanPipeline.load_lora_into_transformer(state, transformer=theirs, metadata=metadata)
    try:
        want = expected(theirs, example)
    finally:
        theirs.delete_adapters(list(theirs.peft_config))
    assert np.abs(want - expected(theirs, example)).max() > 0.1
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)
