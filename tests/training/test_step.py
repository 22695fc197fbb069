"""The loss does not depend on packing; the step does what it says."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from small_model import (
    CONFIG,
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

from vdit.batch import RowShape
from vdit.config import OptimizerConfig
from vdit.diffusion.loss import denoising_loss
from vdit.parallel.mesh import to_global, use_mesh
from vdit.training.optimization.optimizer import make_optimizer
from vdit.training.step import TrainState, abstract_state, init_state, make_train_step

CLIPS = clips()
ALONE = [[c] for c in CLIPS]
STEPPED = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(ema=0.3))


@pytest.fixture(scope="module")
def alone() -> tuple[float, dict[str, np.ndarray]]:
    """Loss and gradients with every clip in a row of its own."""
    return loss_and_gradients(pack(ALONE))


PACKINGS = {
    "one row": [CLIPS],
    "other order": [CLIPS[::-1]],
    "two rows": [CLIPS[3:], CLIPS[:3]],
    "other rows": [CLIPS[:1], CLIPS[:0:-1]],
}


@pytest.mark.parametrize("rows", PACKINGS.values(), ids=PACKINGS.keys())
def test_packing_changes_neither_loss_nor_gradients(alone, rows):
    loss, gradients = loss_and_gradients(pack(rows, count=len(CLIPS)))
    assert loss == pytest.approx(alone[0], rel=2e-6)
    assert_same_gradients(gradients, alone[1], 2e-5)


def test_a_longer_row_changes_neither_loss_nor_gradients(alone):
    loss, gradients = loss_and_gradients(pack([CLIPS], RowShape(84, 9, 20)))
    assert loss == pytest.approx(alone[0], rel=2e-6)
    assert_same_gradients(gradients, alone[1], 2e-5)


def test_packing_in_float64():
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, dtype="float64"))
    loss, gradients = loss_and_gradients(pack([CLIPS], count=len(CLIPS)), config)
    expected, expected_gradients = loss_and_gradients(pack(ALONE), config)
    assert loss == pytest.approx(expected, rel=1e-12)
    assert_same_gradients(gradients, expected_gradients, 1e-10)


@pytest.mark.parametrize("prediction", ["x", "v"])
def test_the_error_by_hand(prediction):
    """With a prediction of 0 the velocity is x_t / t of the clean kind, and 0 of the other."""
    config = dataclasses.replace(CONFIG, model=dataclasses.replace(CONFIG.model, prediction=prediction))
    placed = to_global(pack([CLIPS]), one_device())
    inputs = inputs_function(CONFIG)(placed)
    graph, params = initial(config)
    loss = jax.jit(lambda p, b, q: denoising_loss(graph, p, b, q, config))
    error_BL, count = loss(shard_like(params, config), placed, inputs)
    q = jax.tree.map(np.asarray, inputs)
    assert count == q.loss_mask_BL.sum() < pack([CLIPS]).is_patch_BL.sum(), "some patches are given"
    time = np.maximum(q.time_BL, config.diffusion.least_time)[..., None]
    velocity = q.noised_BLP / time if prediction == "x" else 0
    expected = ((velocity - q.target_BLP) ** 2).mean(-1) * (q.loss_mask_BL > 0)
    np.testing.assert_allclose(error_BL, expected, rtol=1e-5, atol=1e-6)


def test_another_clip_changes_the_loss(alone):
    loss, _ = loss_and_gradients(pack([[c] for c in clips(first=20)]))
    assert abs(loss - alone[0]) > 1e-3 * alone[0]


@pytest.fixture(scope="module")
def step():
    return make_train_step(stirred(CONFIG)[0], STEPPED)


@pytest.fixture(scope="module")
def batch():
    return to_global(pack([CLIPS[3:], CLIPS[:3]]), one_device())


@pytest.fixture(autouse=True)
def mesh():
    with use_mesh(one_device()):
        yield


def fresh_state() -> TrainState:
    params, ema = (shard_like(stirred(CONFIG)[1], CONFIG) for _ in range(2))
    optimizer = make_optimizer(STEPPED.optimizer).init(params)
    return TrainState(jax.numpy.zeros((), jax.numpy.int32), params, ema, optimizer)


def test_metrics_count_what_the_batch_holds(step, batch):
    _, metrics = step(fresh_state(), batch, np.float32(0))
    expected = {
        "patches": sum(c.grid.tokens for c in CLIPS),
        "text": sum(len(c.text_ME) for c in CLIPS),
        "examples": len(CLIPS),
        "attention_pairs": sum(c.tokens**2 for c in CLIPS),
    }
    assert {name: float(metrics[name]) for name in expected} == expected


def test_the_metrics_are_loss_and_gradient_norm_of_the_step(step, batch, alone):
    _, metrics = step(fresh_state(), batch, np.float32(0))
    assert float(metrics["loss"]) == pytest.approx(alone[0], rel=2e-6)
    norm = np.sqrt(sum((leaf.astype(np.float64) ** 2).sum() for leaf in alone[1].values()))
    assert float(metrics["grad_norm"]) == pytest.approx(norm, rel=1e-5)


def test_rate_zero_changes_only_the_step(step, batch):
    state, _ = step(fresh_state(), batch, np.float32(0))
    assert state.step == 1
    jax.tree.map(np.testing.assert_array_equal, state.params, stirred(CONFIG)[1])


def test_the_average_follows_the_parameters(step, batch):
    state = fresh_state()
    average = jax.tree.map(np.asarray, state.ema)
    for number in range(5):
        state, _ = step(state, batch, np.float32(1e-2))
        decay = min(0.3, (1 + number) / (10 + number))
        average = jax.tree.map(lambda a, p, d=decay: d * a + (1 - d) * np.asarray(p), average, state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), state.ema, average)


def test_every_step_has_other_noise_and_the_loss_falls(step, batch):
    state, losses = fresh_state(), []
    for _ in range(40):
        state, metrics = step(state, batch, np.float32(1e-2))
        losses.append(float(metrics["loss"]))
    assert len(set(losses)) == len(losses)
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])


def test_a_fresh_model_predicts_nothing():
    _, params = initial(CONFIG)
    assert not params["out"][...].any()
    assert not params["blocks"]["table"][...].any(), "gates start closed"


def test_the_abstract_state_is_that_of_the_real_one():
    _, state = init_state(CONFIG, INTERFACE)
    graph, abstract = abstract_state(CONFIG, INTERFACE, one_device())
    assert graph == stirred(CONFIG)[0]
    describe = lambda x: (x.shape, x.dtype, x.sharding)  # noqa: E731
    assert jax.tree.map(describe, abstract) == jax.tree.map(describe, state)


def test_the_step_gives_its_state_away_and_moves_nothing_to_or_from_the_host(step, batch):
    state, rate = fresh_state(), jax.device_put(np.float32(1e-2), NamedSharding(one_device(), P()))
    step(fresh_state(), batch, rate)  # compiled outside the guard: constants are moved once
    with jax.transfer_guard("disallow"):
        after, metrics = step(state, batch, rate)
        after, metrics = step(after, batch, rate)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state))
    assert int(after.step) == 2 and np.isfinite(metrics["loss"])


def test_a_run_compiles_its_step_once(batch):
    step = make_train_step(stirred(CONFIG)[0], STEPPED)
    state = fresh_state()
    for rate in (1e-2, 1e-3, 0.0):
        state, _ = step(state, batch, np.float32(rate))
    assert step._cache_size() == 1


def test_the_parts_of_a_step_have_names_in_a_trace(step, batch):
    text = step.lower(fresh_state(), batch, np.float32(0)).as_text(debug_info=True)
    paths = [name for name in re.findall(r'"([^"]+/[^"]+)"', text) if not name.endswith(".py")]
    parts = {part for path in paths for part in re.split(r"[/()]", path)}
    assert {"corrupt", "block", "attention", "feed_forward", "optimizer"} <= parts
