"""Adapters both ways: ours loaded by diffusers, PEFT's read by us, on a Wan transformer of random weights."""

import numpy as np
import pytest
import torch
from diffusers import WanPipeline
from peft import LoraConfig as PeftConfig
from peft.utils import get_peft_model_state_dict
from test_wan_dit import CLIPS, example, expected, predictions, published, theirs  # noqa: F401 (fixtures)

from vdit.config import ModelConfig
from vdit.lora_config import LoraConfig
from vdit.models.adapters import add_all
from vdit.models.lora_files import layers_of, read_lora, write_lora
from vdit.models.wan.wan_weights import read_config
from vdit.training import initial

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]


@pytest.fixture
def clip():
    return example(0, *CLIPS[0][:4]), CLIPS[0][4]


def adapted(folder, clip, adapters, monkeypatch):
    """Our prediction with adapters added to the published weights."""
    load = initial.load_params

    def with_adapters(where, config, interface, like):
        return add_all(load(where, config, interface, like), adapters, 1.0)

    import test_wan_dit

    monkeypatch.setattr(test_wan_dit, "load_params", with_adapters)
    example, time = clip
    return predictions(folder, [example, example], [time, time], "reference")[0]


@pytest.mark.parametrize("how", ["diffusers", "peft"])
def test_theirs_is_read(theirs, published, clip, tmp_path, monkeypatch, how):  # noqa: F811
    """Rank 3 and alpha 12, of all attention and feed-forward layers but those of keys."""
    targets = [name for name in TARGETS if name != "to_k"]
    torch.manual_seed(1)
    theirs.add_adapter(PeftConfig(r=3, lora_alpha=12, target_modules=targets, init_lora_weights=False))
    try:
        want = expected(theirs, *clip)
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
    plain = expected(theirs, *clip)
    model = read_config(published / "config.json", ModelConfig(family="wan")).model
    found = adapted(published, clip, read_lora(tmp_path, model), monkeypatch)
    assert np.abs(want - plain).max() > 0.1
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)


def test_ours_is_loaded(theirs, published, clip, tmp_path, monkeypatch):  # noqa: F811
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
    found = adapted(published, clip, scaled, monkeypatch)

    state, metadata = WanPipeline.lora_state_dict(tmp_path, return_lora_metadata=True)
    WanPipeline.load_lora_into_transformer(state, transformer=theirs, metadata=metadata)
    try:
        want = expected(theirs, *clip)
    finally:
        theirs.delete_adapters(list(theirs.peft_config))
    assert np.abs(want - expected(theirs, *clip)).max() > 0.1
    np.testing.assert_allclose(found, want, rtol=0, atol=1e-3)
