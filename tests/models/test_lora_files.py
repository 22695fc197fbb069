"""Files of adapters: those of diffusers and PEFT are read, ours are named as theirs; tests/parity has both at work."""

import dataclasses
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_model import MODEL
from small_model import WAN_MODEL as WAN

from vdit.errors import UserError
from vdit.lora_config import LoraConfig
from vdit.models.lora_files import FILE, PEFT_FILE, layers_of, parse, read_lora, write_lora

LORA = LoraConfig(rank=2, alpha=6.0)


def random_adapters(model, names=None):
    rng = np.random.default_rng(0)
    found = {}
    for name, layers in layers_of(model).items():
        apart = (len(layers.names),) if len(layers.names) > 1 else ()
        a, b = (*layers.inputs, *apart, LORA.rank), (LORA.rank, *apart, *layers.outputs)
        found[name] = tuple(rng.normal(size=(model.depth, *shape)).astype(np.float32) for shape in (a, b))
    return {name: found[name] for name in names or found}


@pytest.mark.parametrize("model", [MODEL, WAN], ids=["spacetime", "wan"])
def test_what_is_written_is_read(tmp_path, model):
    adapters = random_adapters(model)
    write_lora(tmp_path, adapters, LORA, model)
    found = read_lora(tmp_path, model)
    assert found.keys() == adapters.keys()
    for name, (a, b) in adapters.items():
        np.testing.assert_array_equal(found[name][0], a)
        np.testing.assert_allclose(found[name][1], 3 * b, rtol=1e-6)  # alpha / rank


def test_layers_have_the_names_and_shapes_of_diffusers(tmp_path):
    write_lora(tmp_path, random_adapters(WAN, ["qkv", "text_kv", "down"]), LORA, WAN)
    tensors = load_file(tmp_path / FILE)
    layers = {name.partition(".lora_")[0].removeprefix("transformer.blocks.1.") for name in tensors if ".1." in name}
    assert layers == {"attn1.to_q", "attn1.to_k", "attn1.to_v", "attn2.to_k", "attn2.to_v", "ffn.net.2"}
    assert tensors["transformer.blocks.0.ffn.net.2.lora_A.weight"].shape == (2, 80)
    assert tensors["transformer.blocks.0.ffn.net.2.lora_B.weight"].shape == (32, 2)


def peft_file(folder, model, layers, rank=2, prefix="base_model.model.", drop="", **config):
    rng = np.random.default_rng(1)
    tensors = {}
    for layer, (outputs, inputs) in layers.items():
        tensors[f"{prefix}{layer}.lora_A.weight"] = rng.normal(size=(rank, inputs)).astype(np.float32)
        tensors[f"{prefix}{layer}.lora_B.weight"] = rng.normal(size=(outputs, rank)).astype(np.float32)
    tensors.pop(drop, None)
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / PEFT_FILE)
    (folder / "adapter_config.json").write_text(json.dumps({"r": rank, **config}))
    return tensors


def test_a_file_of_peft_with_few_layers_and_an_alpha(tmp_path):
    """Queries of one block only: keys, values and the other block have zeros; rotary's order of columns is ours."""
    layer = "blocks.1.attn1.to_q"
    tensors = peft_file(tmp_path / "peft", WAN, {layer: (32, 32)}, lora_alpha=8)
    ((a, b),) = (pair for name, pair in read_lora(tmp_path / "peft", WAN).items() if name == "qkv")
    assert not a[0].any() and not b[0].any() and not a[1, :, 1:].any() and not b[1, :, 1:].any()
    found = np.einsum("dr,rhk->hkd", a[1, :, 0], b[1, :, 0])
    expected = (
        4 * tensors[f"base_model.model.{layer}.lora_B.weight"] @ tensors[f"base_model.model.{layer}.lora_A.weight"]
    )
    turned = np.concatenate([expected.reshape(2, 16, 32)[:, 0::2], expected.reshape(2, 16, 32)[:, 1::2]], 1)
    np.testing.assert_allclose(found, turned, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "options", "message"),
    [
        ({"blocks.7.attn1.to_q": (32, 32)}, {}, "has an adapter at blocks.7.attn1.to_q, which the model does not have"),
        (
            {"blocks.0.attn1.to_q": (64, 64)},
            {},
            "blocks.0.attn1.to_q is of 64 x 64 weights, the model has 32 x 32 there; it is of another model",
        ),
        ({"blocks.0.attn1.to_q": (32, 32)}, {"use_dora": True}, "use_rslora or use_dora, which are not read"),
        (
            {"blocks.0.attn1.to_q": (32, 32)},
            {"drop": "base_model.model.blocks.0.attn1.to_q.lora_B.weight"},
            "has no lora_B of blocks.0.attn1.to_q",
        ),
    ],
)
def test_files_of_other_models_and_kinds_are_refused(tmp_path, layers, options, message):
    peft_file(tmp_path / "peft", WAN, layers, **options)
    with pytest.raises(UserError) as error:
        read_lora(tmp_path / "peft", WAN)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="nowhere.safetensors does not exist"):
        read_lora(tmp_path / "nowhere.safetensors", WAN)
    with pytest.raises(UserError, match="holds neither pytorch_lora_weights.safetensors nor adapter_model.safetensors"):
        read_lora(tmp_path, WAN)
    (tmp_path / "text.safetensors").write_text("text")
    with pytest.raises(UserError, match="is not a readable safetensors file"):
        read_lora(tmp_path / "text.safetensors", WAN)
    save_file({"blocks.0.up": np.zeros((2, 2), np.float32)}, tmp_path / "whole.safetensors")
    with pytest.raises(UserError, match="holds blocks.0.up, which is not an adapter of a linear layer"):
        read_lora(tmp_path / "whole.safetensors", WAN)


def test_a_flag_names_a_file_and_how_much_of_it(tmp_path):
    assert parse("a.safetensors") == (tmp_path.__class__("a.safetensors"), 1.0)
    assert parse("b/a.safetensors:-0.5") == (tmp_path.__class__("b/a.safetensors"), -0.5)
    (tmp_path / "x:2").mkdir()
    assert parse(f"{tmp_path}/x:2") == (tmp_path / "x:2", 1.0)
    with pytest.raises(UserError, match="nan is not a finite number"):
        parse("a.safetensors:nan")


def test_widths_that_differ_are_another_model(tmp_path):
    write_lora(tmp_path, random_adapters(MODEL), LORA, MODEL)
    with pytest.raises(UserError, match="it is of another model"):
        read_lora(tmp_path, dataclasses.replace(MODEL, width=64))
