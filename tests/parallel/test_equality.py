"""Every layout over eight devices gives the loss and gradients of one, and communicates only what it must."""

import dataclasses
import functools
import itertools
import re
from typing import Any

import jax
import numpy as np
import pytest
from small_model import (
    CONFIG,
    MODEL,
    clips,
    initial,
    loss_and_gradients,
    one_device,
    pack,
    shard_like,
    stirred,
)

from vdit.batch import RowShape
from vdit.config import Config, MeshConfig, OptimizerConfig
from vdit.errors import UserError
from vdit.parallel.mesh import make_mesh, to_global, use_mesh
from vdit.training import step

CLIPS = clips() + clips(first=30)
SHAPE = RowShape(tokens=72, examples=6, text=16)  # 72 is no dimension of a weight
ROWS = pack([[CLIPS[i], CLIPS[(i + 3) % 10], CLIPS[(i + 7) % 10]] for i in range(8)], SHAPE)
DEPTH = 3
"""Layers, and a leading dimension of nothing but a stack of their weights."""
LAYOUTS = [MeshConfig(*sizes) for sizes in itertools.product((1, 2, 4, 8), repeat=4) if np.prod(sizes) == 8]
"""All ways to write 8 as a product over the four axes."""


def config_of(layout: MeshConfig, **changes: Any) -> Config:
    """Eight heads where the layout cuts them in more than two, so that each device has one."""
    heads = dict(width=64, head_width=8, base_width=16) if layout.tensor > 2 else {}
    return dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, depth=DEPTH, **heads, **changes))


@functools.cache
def on_one_device(config: Config) -> tuple[float, dict[str, np.ndarray]]:
    return loss_and_gradients(ROWS, config)


COLLECTIVE = re.compile(
    r"= \(?(\w+)\[([\d,]*)\].* (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
)


def assert_contract(hlo: str, layout: MeshConfig, config: Config) -> None:
    """Which collectives a layout may contain, and how much each may gather.

    Whatever the layout, sums are reduced. Sharded state is gathered, one weight of one layer at a time. A row over
    `context` exchanges heads or passes round; its segment ids are all of it that is ever on one device.
    """
    found = [(kind, dtype, tuple(map(int, dims.split(",")))) for dtype, dims, kind in COLLECTIVE.findall(hlo) if dims]
    heads = config.model.heads // layout.tensor
    exchanges = layout.context > 1 and config.model.context != "ring" and heads % layout.context == 0
    allowed = {"all-reduce"}
    if layout.fsdp * layout.context > 1:
        allowed |= {"all-gather", "reduce-scatter"}
    if layout.context > 1:
        allowed.add("all-to-all" if exchanges else "collective-permute")
    assert {kind for kind, *_ in found} <= allowed
    largest = 6 * config.model.width**2  # the modulation
    for kind, dtype, dims in found:
        if kind == "all-gather":
            assert np.prod(dims) <= largest and dims[0] != DEPTH, "more than one weight at once"
            assert SHAPE.tokens not in dims or dtype == "s32", "a whole row"


def assert_equal(layout: MeshConfig, config: Config, of_loss: float, of_gradients: float) -> None:
    """Compares with one device: the loss relatively, every leaf of the gradient by the norm of the difference."""
    unaltered = dict(remat="none", keep_weights=False, context="auto")
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, **unaltered))
    expected, expected_gradients = on_one_device(plain)
    check = functools.partial(assert_contract, layout=layout, config=config)
    loss, gradients = loss_and_gradients(ROWS, config, make_mesh(layout), check)
    assert loss == pytest.approx(expected, rel=of_loss)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        norm = np.linalg.norm(value)
        assert norm > 0, name
        assert np.linalg.norm(gradients[name]) == pytest.approx(norm, rel=of_gradients), name
        assert np.linalg.norm(gradients[name] - value) < of_gradients * norm, name


def name_of(layout: MeshConfig) -> str:
    return "x".join(map(str, dataclasses.astuple(layout)))


EVERY_DAY = [MeshConfig(*sizes) for sizes in itertools.product((1, 2), repeat=4) if np.prod(sizes) == 8]
EVERY_DAY += [MeshConfig(*np.where(np.arange(4) == axis, 8, 1).tolist()) for axis in range(4)]
"""Each axis alone and any three of them together; the rest of `LAYOUTS` is compared nightly."""


@pytest.mark.parametrize(
    "layout",
    [pytest.param(each, marks=[] if each in EVERY_DAY else [pytest.mark.nightly]) for each in LAYOUTS],
    ids=name_of,
)
def test_every_layout_in_float32(layout):
    assert_equal(layout, config_of(layout), 1e-6, 1e-4)


FEW = [MeshConfig(2, 2, 2, 1), MeshConfig(1, 2, 2, 2)]


@pytest.mark.parametrize("layout", FEW, ids=name_of)
def test_some_layouts_in_float64(layout):
    assert_equal(layout, config_of(layout, dtype="float64"), 1e-10, 1e-10)


@pytest.mark.parametrize(
    ("remat", "kind"),
    [("blocks", "all_to_all"), ("attention", "ring"), ("offload", "ring")]
    + [
        pytest.param(*each, marks=pytest.mark.nightly)
        for each in (("blocks", "ring"), ("attention", "all_to_all"), ("offload", "all_to_all"))
    ],
)
def test_rematerialised_with_rows_over_devices(remat, kind):
    layout = MeshConfig(2, 2, 2, 1)
    assert_equal(layout, config_of(layout, remat=remat, context=kind), 1e-6, 1e-4)


def test_weights_stay_gathered():
    """The same gradients, and no weight of a block is gathered a second time."""
    layout, gathers = MeshConfig(2, 2, 2, 1), []

    def count(hlo: str) -> None:
        gathers.append(len(re.findall(r"= \S+ all-gather\(", hlo)))

    for keep in (False, True):
        config = config_of(layout, remat="blocks", keep_weights=keep)
        loss_and_gradients(ROWS, config, make_mesh(layout), count)
    assert gathers[1] == gathers[0] - 4
    assert_equal(layout, config, 1e-6, 1e-4)


@pytest.mark.parametrize(("layout", "parts"), [(MeshConfig(1, 1, 1, 1), 4), (MeshConfig(2, 1, 2, 2), 2)], ids=str)
def test_a_step_in_parts(layout, parts):
    config = dataclasses.replace(config_of(layout, remat="blocks"), optimizer=OptimizerConfig(accumulate=parts))
    mesh = make_mesh(layout, jax.devices()[: np.prod(dataclasses.astuple(layout))])
    graph, _ = initial(config)
    with use_mesh(mesh):
        key = jax.random.fold_in(jax.random.key(config.seed), 0)
        function = jax.jit(lambda params, batch: step.loss_and_gradients(graph, params, batch, key, config))
        loss, gradients = function(shard_like(stirred(config)[1], config), to_global(ROWS, mesh))
    expected, expected_gradients = on_one_device(config_of(layout))
    assert float(loss) == pytest.approx(expected, rel=1e-6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        value = expected_gradients[jax.tree_util.keystr(path)]
        assert np.linalg.norm(leaf - value) < 1e-4 * np.linalg.norm(value), path


def test_parts_that_do_not_go():
    config = dataclasses.replace(CONFIG, optimizer=OptimizerConfig(accumulate=3))
    graph, _ = initial(config)
    with use_mesh(one_device()), pytest.raises(UserError, match="accumulate=3 does not divide the 8 rows of a step"):
        batch = to_global(ROWS, one_device())
        params = shard_like(stirred(config)[1], config)
        jax.eval_shape(lambda p, b: step.loss_and_gradients(graph, p, b, jax.random.key(0), config), params, batch)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["none", "blocks", "attention", "offload"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=name_of)
def test_everything_with_everything(layout, dtype, remat):
    tolerances = (1e-6, 1e-4) if dtype == "float32" else (1e-10, 1e-10)
    assert_equal(layout, config_of(layout, dtype=dtype, remat=remat), *tolerances)
