"""The mesh, and that no layout over it changes loss or gradients."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from small_model import CONFIG, INTERFACE, clips, loss_and_gradients, one_device, pack

from vdit.config import MeshConfig, UserError
from vdit.parallel.mesh import AXES, make_mesh, row_shards, rows_spec, to_global, use_mesh
from vdit.parallel.rowwise import rowwise, take
from vdit.training.step import init_state


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (MeshConfig(), (8, 1, 1, 1)),
        (MeshConfig(replica=1, fsdp=-1), (1, 8, 1, 1)),
        (MeshConfig(replica=2, fsdp=4), (2, 4, 1, 1)),
        (MeshConfig(fsdp=2, tensor=2), (2, 2, 1, 2)),
        (MeshConfig(replica=1, context=-1, tensor=2), (1, 1, 4, 2)),
    ],
)
def test_sizes(config, sizes):
    mesh = make_mesh(config)
    assert tuple(mesh.shape[axis] for axis in AXES) == sizes
    assert mesh.axis_types == (AxisType.Explicit,) * 4
    assert row_shards(mesh) == sizes[0] * sizes[1]
    assert sorted(d.id for d in mesh.devices.flat) == sorted(d.id for d in jax.devices())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (MeshConfig(replica=3), "'fsdp': 1, 'context': 1, 'tensor': 1} needs 3 devices, there are 8"),
        (MeshConfig(replica=-1, fsdp=3), "needs 6 devices, there are 8"),
        (MeshConfig(replica=-1, fsdp=16), "needs 16 devices, there are 8"),
        (MeshConfig(replica=-1, fsdp=-1), "must be positive, one of them may be -1"),
        (MeshConfig(replica=8, fsdp=0), "must be positive"),
        (MeshConfig(replica=8, tensor=-2), "must be positive"),
    ],
)  # fmt: skip
def test_sizes_that_cannot_be(config, message):
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        make_mesh(config)
    assert "\n" not in str(raised.value)


def test_rows_are_spread_over_replica_and_fsdp():
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    array = np.arange(24).reshape(8, 3)
    (placed,) = jax.tree.leaves(to_global([array], mesh))
    np.testing.assert_array_equal(placed, array)
    assert placed.sharding.spec == rows_spec(2) == P(("replica", "fsdp"), None)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}
    for shard in placed.addressable_shards:
        np.testing.assert_array_equal(shard.data, array[shard.index])


def test_parameters_and_optimizer_state_are_spread_over_fsdp():
    with use_mesh(make_mesh(MeshConfig(replica=1, fsdp=8))):
        _, state = init_state(CONFIG, INTERFACE)
    for tree in (state.params, state.ema, state.optimizer):
        whole = sum(leaf.size for leaf in jax.tree.leaves(tree))
        local = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(tree))
        assert local < 0.2 * whole


def test_rowwise_work_never_communicates():
    mesh = make_mesh(MeshConfig())
    table, index = np.random.default_rng(0).normal(size=(8, 5, 3)).astype(np.float32), np.arange(32).reshape(8, 4) % 5
    with use_mesh(mesh):
        function = jax.jit(jax.grad(lambda t, i: (take(t, i) ** 2).sum()))
        compiled = function.lower(*to_global((table, index), mesh)).compile()
        reversed_rows = rowwise(lambda x: x[:, ::-1], to_global(table, mesh))
    for collective in ("all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert collective not in compiled.as_text()
    np.testing.assert_array_equal(reversed_rows, table[:, ::-1])


def test_take_and_its_gradient():
    rng = np.random.default_rng(0)
    table, index, grad = rng.normal(size=(2, 5, 3)), rng.integers(0, 5, (2, 7)), rng.normal(size=(2, 7, 3))
    table, grad = table.astype(np.float32), grad.astype(np.float32)
    with use_mesh(one_device()):
        out, pull = jax.vjp(lambda t: take(t, to_global(index, one_device())), to_global(table, one_device()))
        (found,) = pull(to_global(grad, one_device()))
    np.testing.assert_array_equal(out, np.take_along_axis(table, index[..., None], 1))
    expected = np.zeros_like(table)
    for b in range(2):
        np.add.at(expected[b], index[b], grad[b])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


CLIPS = clips() + clips(first=30)
ROWS = pack([[CLIPS[i], CLIPS[(i + 3) % 10], CLIPS[(i + 7) % 10]] for i in range(8)])


@pytest.fixture(scope="module")
def unsharded() -> tuple[float, dict[str, np.ndarray]]:
    return loss_and_gradients(ROWS)


@pytest.mark.parametrize(
    "config",
    [
        MeshConfig(replica=8),
        MeshConfig(replica=1, fsdp=8),
        MeshConfig(replica=2, fsdp=4),
        MeshConfig(replica=2, fsdp=2, tensor=2),
    ],
    ids=str,
)
def test_sharding_changes_neither_loss_nor_gradients(config, unsharded):
    loss, gradients = loss_and_gradients(ROWS, mesh=make_mesh(config))
    assert loss == pytest.approx(unsharded[0], rel=1e-6)
    for name, value in unsharded[1].items():
        norm = np.linalg.norm(value)
        assert norm > 0, name
        assert np.linalg.norm(gradients[name]) == pytest.approx(norm, rel=1e-4), name
        assert np.linalg.norm(gradients[name] - value) < 1e-4 * norm, name
