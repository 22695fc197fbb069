"""The transformer: what an output may depend on, and that layers, remat and dtypes change nothing else."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_model import (
    CONFIG,
    INTERFACE,
    MODEL,
    PATCH,
    SHAPE,
    SIZES,
    TEXT_WIDTH,
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

from vdit.batch import PackedBatch
from vdit.config import TIME_FEATURES, Config, MeshConfig, OptimizerConfig
from vdit.errors import UserError
from vdit.models import transformer
from vdit.models.feed_forward import feed_forward
from vdit.models.transformer import parameter_counts, rms_norm, time_features
from vdit.models.wan.wan_dit import gelu
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.training.optimization.optimizer import rate_multipliers
from vdit.training.step import init_state

CLIPS = clips()


def config_of(**changes: Any) -> Config:
    return dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, **changes))


def test_feed_forward_equals_its_formula_and_keeps_one_wide_array():
    rng = np.random.default_rng(0)
    sizes = (2, 5, 4), (4, 12), (12, 4), (2, 5, 4)
    *arguments, grad = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in sizes)
    with use_mesh(one_device()):
        value, pull = jax.vjp(feed_forward, *arguments)
        grads = pull(grad)
    expected, plain = jax.vjp(lambda x, up, down: jax.nn.gelu(x @ up) @ down, *arguments)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    for found, wanted in zip(grads, plain(grad), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    kept = sorted(leaf.shape for leaf in jax.tree.leaves(pull) if jnp.ndim(leaf))
    assert kept == sorted([*sizes[:3], (2, 5, 12)])


def test_recomputed_work_keeps_its_arguments_only():
    x, grad = jnp.linspace(-5, 5, 41), jnp.cos(jnp.arange(41.0))
    (value, pull), (expected, plain) = (jax.vjp(f, x) for f in (gelu, jax.nn.gelu))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(pull(grad)[0], plain(grad)[0], rtol=1e-5, atol=1e-7)
    assert [leaf.shape for leaf in jax.tree.leaves(pull) if jnp.ndim(leaf)] == [x.shape]


@functools.cache
def _compiled(config: Config):
    graph, _ = initial(config)

    def predict(params, batch, noised_BLP, times_BK, time_index_BL, null_BN):
        return nnx.merge(graph, params)(noised_BLP, times_BK, time_index_BL, batch, null_BN)

    return jax.jit(predict)


def predict(batch: PackedBatch, config: Config = CONFIG, **changes: Any) -> np.ndarray:
    """Prediction for every slot on the inputs of training, with changed parts."""
    mesh = one_device()
    with use_mesh(mesh):
        placed = to_global(batch, mesh)
        inputs = inputs_function(CONFIG)(placed)
        parts = {name: getattr(inputs, name) for name in ("noised_BLP", "times_BK", "time_index_BL")}
        parts["null_BN"] = np.zeros(batch.grid_BN3.shape[:2], bool)
        parts |= changes
        params = shard_like(stirred(config)[1], config)
        return np.asarray(_compiled(config)(params, placed, **to_global(jax.tree.map(np.asarray, parts), mesh)))


def patches_of(batch: PackedBatch, values_BLP: np.ndarray) -> list[np.ndarray]:
    """Values of the patches of each example of row 0."""
    return [
        values_BLP[0, batch.is_patch_BL[0] & (batch.segments_BL[0] == n + 1)]
        for n in range(int((batch.grid_BN3[0].prod(-1) > 0).sum()))
    ]


def changed(before: PackedBatch, a: np.ndarray, after: PackedBatch, b: np.ndarray) -> list[bool]:
    return [
        not np.allclose(x, y, rtol=1e-5, atol=1e-5)
        for x, y in zip(patches_of(before, a), patches_of(after, b), strict=True)
    ]


def test_a_caption_changes_its_own_example_only():
    for n, example in enumerate(CLIPS):
        text = example.text_ME + 1
        others = [dataclasses.replace(c, text_ME=text) if c is example else c for c in CLIPS]
        before, after = pack([CLIPS]), pack([others])
        expected = [i == n and len(text) > 0 for i in range(len(CLIPS))]
        assert changed(before, predict(before), after, predict(after)) == expected


def test_a_patch_changes_its_own_example_only():
    batch = pack([CLIPS])
    noised = np.asarray(inputs_of(batch).noised_BLP).copy()
    for n in range(len(CLIPS)):
        other = noised.copy()
        slot = np.flatnonzero(batch.is_patch_BL[0] & (batch.segments_BL[0] == n + 1))[0]
        other[0, slot] += 1
        found = patches_of(batch, predict(batch, noised_BLP=other))
        expected = patches_of(batch, predict(batch, noised_BLP=noised))
        assert [not np.array_equal(a, b) for a, b in zip(found, expected, strict=True)] == [i == n for i in range(5)]
        if CLIPS[n].grid.tokens > 1:
            assert not np.allclose(found[n][-1], expected[n][-1], atol=1e-4), "the last patch sees the first"


def inputs_of(batch: PackedBatch):
    with use_mesh(one_device()):
        return jax.tree.map(np.asarray, inputs_function(CONFIG)(to_global(batch, one_device())))


def test_what_padding_holds_does_not_matter():
    batch = pack([CLIPS])
    rng = np.random.default_rng(0)
    padding = batch.segments_BL == 0
    filled = dataclasses.replace(batch, text_BME=batch.text_BME.copy(), positions_BL3=batch.positions_BL3.copy())
    filled.text_BME[0, sum(size[3] for size in SIZES) :] = 9
    filled.positions_BL3[padding] = 7
    noised = inputs_of(batch).noised_BLP.copy()
    noised[padding] = rng.normal(size=noised[padding].shape)
    found, expected = predict(filled, noised_BLP=noised), predict(batch)
    for a, b in zip(patches_of(batch, found), patches_of(batch, expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_dropped_caption_is_the_null_caption_whatever_it_said():
    before = pack([CLIPS])
    after = pack([[dataclasses.replace(c, text_ME=c.text_ME + 1) for c in CLIPS]])
    null = np.zeros((1, SHAPE.examples), bool)
    null[0, [0, 3]] = True
    a, b = predict(before, null_BN=null), predict(after, null_BN=null)
    assert changed(before, a, after, b) == [False, True, False, False, True]  # 2 has no caption
    assert changed(before, a, before, predict(before)) == [True, False, False, True, False]


def test_times_change_their_own_example_only_and_captions_have_none():
    batch = pack([CLIPS])
    times = inputs_of(batch).times_BK.copy()
    times[0, 1] = 0.9 * times[0, 1]
    assert changed(batch, predict(batch), batch, predict(batch, times_BK=times)) == [False, True, False, False, False]
    index = inputs_of(batch).time_index_BL.copy()
    index[~batch.is_patch_BL] = 3
    np.testing.assert_array_equal(
        predict(batch, time_index_BL=index)[batch.is_patch_BL], predict(batch)[batch.is_patch_BL]
    )


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["time", "row", "column"])
def test_positions_are_seen(axis):
    batch = pack([CLIPS])
    moved = dataclasses.replace(batch, positions_BL3=batch.positions_BL3.copy())
    moved.positions_BL3[..., axis] *= 1.5
    extents = [c.grid[axis] > 1 for c in CLIPS]
    found = changed(batch, predict(batch), moved, predict(moved))
    assert all(seen for seen, extent in zip(found, extents, strict=True) if extent)


def test_prediction_is_float32_for_every_slot():
    batch = pack([CLIPS])
    out = predict(batch)
    assert out.dtype == np.float32
    assert out.shape == (1, SHAPE.tokens, PATCH.size())
    assert np.isfinite(out).all()


def test_bfloat16_is_close_and_trains():
    config = config_of(dtype="bfloat16")
    batch = pack([CLIPS])
    exact, rough = predict(batch), predict(batch, config)
    assert rough.dtype == np.float32
    real = batch.is_patch_BL
    assert not np.array_equal(rough, exact)
    assert np.abs(rough - exact)[real].max() < 0.1 * np.abs(exact[real]).max()
    assert np.sqrt(((rough - exact)[real] ** 2).mean() / (exact[real] ** 2).mean()) < 0.03
    batch = pack([CLIPS], count=5)
    loss, gradients = loss_and_gradients(batch, config)
    expected, expected_gradients = loss_and_gradients(batch)
    assert loss == pytest.approx(expected, rel=0.03)
    for name, value in expected_gradients.items():
        assert gradients[name].dtype == np.float32
        assert np.linalg.norm(gradients[name] - value) < 0.1 * np.linalg.norm(value), name


def test_scanned_layers_are_a_loop_over_layers(monkeypatch):
    def loop(body, carry, stacked, unroll):
        for layer in range(MODEL.depth):
            carry, _ = body(carry, jax.tree.map(lambda leaf, i=layer: leaf[i], stacked))
        return carry, None

    expected = predict(pack([CLIPS]))
    config = dataclasses.replace(CONFIG, seed=CONFIG.seed)
    _compiled.cache_clear()
    monkeypatch.setattr(jax.lax, "scan", loop)
    found = predict(pack([CLIPS]), config)
    _compiled.cache_clear()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_that_are_no_loop_give_the_same_loss_and_gradients(monkeypatch):
    batch = pack([CLIPS], count=5)
    loss, gradients = loss_and_gradients(batch)
    monkeypatch.setattr(transformer, "UNROLLED", 0)
    expected, expected_gradients = loss_and_gradients(batch, config_of(keep_weights=True))  # another compilation
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_same_gradients(gradients, expected_gradients, 1e-5)


def test_remat_changes_nothing():
    batch = pack([CLIPS], count=5)
    loss, gradients = loss_and_gradients(batch, config_of(remat="blocks"))
    expected, expected_gradients = loss_and_gradients(batch)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_same_gradients(gradients, expected_gradients, 1e-5)


def test_remat_recomputes_the_blocks():
    def recomputed(config: Config) -> bool:
        graph, _ = initial(config)
        with use_mesh(one_device()):
            batch = to_global(pack([CLIPS]), one_device())
            q = inputs_function(CONFIG)(batch)
            params = shard_like(stirred(config)[1], config)
            call = lambda p: nnx.merge(graph, p)(q.noised_BLP, q.times_BK, q.time_index_BL, batch, q.null_BN).sum()  # noqa: E731
            return "checkpoint" in str(jax.make_jaxpr(call)(params)) or "remat" in str(jax.make_jaxpr(call)(params))

    assert recomputed(config_of(remat="blocks"))
    assert not recomputed(CONFIG)


def test_reference_attention_gives_the_same_model():
    found = predict(pack([CLIPS]), config_of(attention="reference"))
    np.testing.assert_allclose(found, predict(pack([CLIPS])), rtol=1e-4, atol=2e-5)


def test_parameter_counts_by_hand():
    d, f, p, e, layers = MODEL.width, 4 * MODEL.width, PATCH.size(), TEXT_WIDTH, MODEL.depth
    _, params = initial(CONFIG)
    block = d * 3 * d + d * d + 2 * d * f + 2 * MODEL.head_width + 6 * d
    modulation = TIME_FEATURES * d + d * 6 * d + 6 * d + d * 2 * d
    biases = 2 * d
    body = layers * block + modulation + biases
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    position = params["position_in"][...].size
    projections = p * d + e * d + e + d * p + p + position
    assert parameter_counts(params) == (body, total)
    assert total == body + projections


def test_weights_start_as_declared():
    _, params = initial(CONFIG)
    matrix = params["blocks"]["qkv"][...]
    assert matrix.std() == pytest.approx(MODEL.width**-0.5, rel=0.05)
    assert not np.array_equal(matrix[0], matrix[1]), "layers start differently"
    for name in ("out", "final", "modulation"):
        assert not params[name][...].any(), name
    other = initial(dataclasses.replace(CONFIG, seed=1))[1]
    assert not np.array_equal(other["patch_in"][...], params["patch_in"][...])


def test_rms_norm():
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32) * 5
    np.testing.assert_allclose(rms_norm(jnp.asarray(x)), x / np.sqrt((x**2).mean(-1, keepdims=True)), rtol=1e-5)
    assert rms_norm(jnp.asarray(x, jnp.bfloat16)).dtype == jnp.bfloat16


def test_time_features_tell_times_apart():
    times = jnp.linspace(0, 1, 101)[None]
    features = np.asarray(time_features(times))[0]
    assert features.shape == (101, TIME_FEATURES)
    distance = np.linalg.norm(features[:, None] - features[None], axis=-1) + 9 * np.eye(101)
    assert distance.min() > 0.5


@pytest.mark.parametrize("mesh", [MeshConfig(fsdp=8), MeshConfig(fsdp=1, tensor=8)])
def test_a_mesh_that_does_not_divide_the_model_is_one_line(mesh):
    config = config_of(width=36, head_width=18, base_width=36)
    axis = "fsdp" if mesh.fsdp > 1 else "tensor"
    with use_mesh(make_mesh(mesh)), pytest.raises(UserError, match=f"mesh.{axis}=8 does not divide") as raised:
        init_state(config, INTERFACE)
    assert "\n" not in str(raised.value)


def test_learning_rates_fall_with_the_inputs_of_a_matrix():
    for width in (32, 64):
        config = dataclasses.replace(MODEL, width=width)
        _, params = initial(dataclasses.replace(CONFIG, model=config))
        rates = jax.tree.map(float, rate_multipliers(params, config, OptimizerConfig()))
        found = {jax.tree_util.keystr(path): value for path, value in jax.tree_util.tree_leaves_with_path(rates)}
        base = MODEL.base_width
        expected = {"qkv": base / width, "down": base / (4 * width), "patch_in": base / PATCH.size(), "table": 1}
        for name, value in expected.items():
            assert [v for key, v in found.items() if f"'{name}'" in key] == [value], name
        assert found["['out'].value"] == 1
