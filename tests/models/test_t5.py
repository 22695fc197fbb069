"""T5 and UMT5 encoders on random weights; tests/parity/test_t5.py compares them with the published implementation."""

from __future__ import annotations

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.models.text import t5
from vdit.models.text.text_encoders import load_text_encoder
from vdit.parallel.mesh import make_mesh

CONFIG = t5.T5Config(vocabulary=40, width=16, layers=2, heads=4, head_width=4, feed_forward=24, bias_per_layer=True)
WORDS = "red blue ball falls right left".split()


def write_weights(folder, config, kind="umt5", tokenizer=True):
    rng = np.random.default_rng(0)
    tensors = {}
    for weight in t5._weights(config).values():
        for name in t5._names(weight):
            tensors[name] = rng.normal(0, 0.3, t5._published_shape(weight)).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors")
    values = {
        "model_type": kind,
        "feed_forward_proj": "gated-gelu" if config.gated else "relu",
        "vocab_size": config.vocabulary,
        "d_model": config.width,
        "num_layers": config.layers,
        "num_heads": config.heads,
        "d_kv": config.head_width,
        "d_ff": config.feed_forward,
    }
    (folder / "config.json").write_text(json.dumps(values))
    if tokenizer:
        words = {word: i for i, word in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
        made = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
        made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("umt5"), CONFIG)


def encode(folder, mesh, ids_BM, lengths_B, config=CONFIG):
    weights = t5.read_weights(folder, config, mesh, np.float32)
    with jax.set_mesh(mesh):
        encode = jax.jit(lambda w, ids, lengths: t5.encode(w, ids, lengths, config))
        return weights, np.asarray(encode(weights, np.asarray(ids_BM, np.int32), np.asarray(lengths_B, np.int32)))


IDS = np.random.default_rng(1).integers(0, 40, (2, 20))


def test_sharded_equals_whole_and_nothing_is_held_twice(folder):
    plain = make_mesh(MeshConfig(), jax.devices()[:1])
    _, expected = encode(folder, plain, IDS, [20, 13])
    mesh = make_mesh(MeshConfig(replica=1, fsdp=2, tensor=2), jax.devices()[:4])
    weights, found = encode(folder, mesh, IDS, [20, 13])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for name in ("q", "k", "v", "o", "up", "gate", "down"):
        assert weights[name].addressable_shards[0].data.size * 4 == weights[name].size, name


def test_padding_changes_no_feature(folder):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    _, bare = encode(folder, mesh, IDS[1:, :13], [13])
    _, padded = encode(folder, mesh, IDS, [20, 13])
    np.testing.assert_allclose(padded[1, :13], bare[0], atol=2e-6)


def test_every_position_bias_is_its_layers_own_or_the_firsts(folder, tmp_path):
    shared = dataclasses.replace(CONFIG, bias_per_layer=False)
    write_weights(tmp_path, shared, "t5")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    weights, _ = encode(tmp_path, mesh, IDS, [20, 20], shared)
    assert weights["bias"].shape == (32, 4)
    assert t5.read_weights(folder, CONFIG, mesh, np.float32)["bias"].shape == (2, 32, 4)


def test_buckets_tell_near_positions_apart_and_directions(folder):
    buckets = t5.buckets_QM(200, CONFIG)
    assert buckets[0, :8].tolist() == [0, 17, 18, 19, 20, 21, 22, 23]
    assert buckets[:8, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert buckets[0, 128:].tolist() == [31] * 72 and buckets[128:, 0].tolist() == [15] * 72
    assert (np.diff(buckets[0]) >= 0).sum() == 199


def test_encoder_by_name(folder, monkeypatch, caplog):
    monkeypatch.setattr(t5, "MAX_TOKENS", 5)
    # The eight devices do not divide this model's four heads.
    with pytest.raises(UserError, match="8 devices do not divide the 4 heads"):
        load_text_encoder(f"umt5:{folder}")
    mesh = make_mesh(MeshConfig(fsdp=4), jax.devices()[:4])
    encoder = t5.load_t5("umt5", str(folder), mesh)
    assert (encoder.name, encoder.width, len(encoder.hash)) == (f"umt5:{folder}", 16, 64)
    with caplog.at_level(logging.WARNING, logger="absl"):
        short, empty, long = encoder.encode(["red ball", "", "red ball falls left right blue"])
    assert short.shape == (3, 16) and short.dtype == np.float16  # with </s>
    assert empty.shape == (0, 16) and long.shape == (5, 16)
    (message,) = [record.getMessage() for record in caplog.records]
    assert "has 7 tokens" in message and "cut at character 19" in message


def test_whole_pipeline_folder_is_understood(tmp_path):
    write_weights(tmp_path / "text_encoder", CONFIG)
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "text_encoder" / "tokenizer.json").rename(tmp_path / "tokenizer" / "tokenizer.json")
    encoder = t5.load_t5("umt5", str(tmp_path), make_mesh(MeshConfig(), jax.devices()[:1]), np.float32)
    assert encoder.encode(["red"])[0].shape == (2, 16)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("umt5:/no/such/folder", "not a folder of weights, nor a hub id"),
        ("umt5:", r"'umt5:'; choose one of minilm, none, t5:WEIGHTS, umt5:WEIGHTS|no text encoder"),
        ("clip:x", "no text encoder is called 'clip:x'"),
    ],
)
def test_unknown_encoders_are_one_line(name, message):
    with pytest.raises(UserError, match=message):
        load_text_encoder(name)


def test_wrong_weights_are_one_line(folder, tmp_path):
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    with pytest.raises(UserError, match=r"holds a umt5 encoder, not t5; name it umt5:"):
        t5.load_t5("t5", str(folder), mesh)
    with pytest.raises(UserError, match=r"no tensor encoder\.block\.2\.layer\.0"):
        t5.read_weights(folder, dataclasses.replace(CONFIG, layers=3), mesh, np.float32)
    bare = write_weights(tmp_path / "bare", CONFIG, tokenizer=False)
    with pytest.raises(UserError, match="has no tokenizer.json"):
        t5.load_t5("umt5", str(bare), mesh)
    (bare / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is not the config of a T5 or UMT5 encoder"):
        t5.load_t5("umt5", str(bare), mesh)
