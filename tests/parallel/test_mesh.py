"""The mesh, and that no layout over it changes loss or gradients."""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P
from small_model import CONFIG, INTERFACE, clips, one_device, pack

from vdit.config import MeshConfig
from vdit.errors import UserError
from vdit.parallel.mesh import AXES, _part_of, make_mesh, row_shards, rows_spec, to_global, tokens_spec, use_mesh
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


def test_tokens_are_spread_over_context():
    mesh = make_mesh(MeshConfig(replica=2, context=4))
    batch = pack([clips(), clips(first=30)])
    placed = to_global(batch, mesh)
    jax.tree.map(np.testing.assert_array_equal, placed, batch)
    assert placed.patches_BLP.sharding.spec == tokens_spec(3) == P(("replica", "fsdp"), "context", None)
    assert {shard.data.shape for shard in placed.segments_BL.addressable_shards} == {(1, 16)}
    for name in ("text_BME", "grid_BN3", "ids_BN2"):
        assert getattr(placed, name).sharding.spec == rows_spec(3)


@pytest.mark.parametrize(
    ("processes", "expected"),
    [
        ([[0], [0], [1], [1]], [(0, 2), (1, 2)]),
        ([[0, 0], [1, 1]], [(0, 2), (1, 2)]),
        ([[0, 1], [0, 1]], [(0, 1), (0, 1)]),  # both hold all rows, each half of their tokens
        ([[0, 1], [2, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
        ([[0, 0, 1, 1], [2, 2, 3, 3]], [(0, 2), (0, 2), (1, 2), (1, 2)]),
    ],
)
def test_which_rows_a_process_reads(processes, expected):
    grid = np.array(processes)
    assert [_part_of(grid, process) for process in range(grid.max() + 1)] == expected


def test_rows_that_processes_hold_unevenly():
    with pytest.raises(UserError, match="cuts rows across processes unevenly"):
        _part_of(np.array([[0, 0], [0, 1], [1, 1]]), 0)


@pytest.mark.parametrize("config", [MeshConfig(replica=1, fsdp=8), MeshConfig(replica=1, fsdp=2, context=4)], ids=str)
def test_parameters_and_optimizer_state_are_spread(config):
    with use_mesh(make_mesh(config)):
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
