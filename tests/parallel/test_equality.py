"""Every layout over eight devices gives the loss and gradients of one device."""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
import pytest
from small_model import CONFIG, MODEL, clips, loss_and_gradients, pack

from vdit.config import Config, MeshConfig
from vdit.parallel.mesh import make_mesh

CLIPS = clips() + clips(first=30)
ROWS = pack([[CLIPS[i], CLIPS[(i + 3) % 10], CLIPS[(i + 7) % 10]] for i in range(8)])
LAYOUTS = [MeshConfig(*sizes) for sizes in itertools.product((1, 2, 4, 8), repeat=4) if np.prod(sizes) == 8]
"""All ways to write 8 as a product over the four axes."""


def config_of(layout: MeshConfig, **changes: Any) -> Config:
    """Eight heads where the layout cuts them in more than two, so that each device has one."""
    heads = dict(width=64, head_width=8, base_width=16) if layout.tensor > 2 else {}
    return dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, **heads, **changes))


@functools.cache
def on_one_device(config: Config) -> tuple[float, dict[str, np.ndarray]]:
    return loss_and_gradients(ROWS, config)


def assert_equal(layout: MeshConfig, config: Config, of_loss: float, of_gradients: float) -> None:
    """Compares with one device: the loss relatively, every leaf of the gradient by the norm of the difference."""
    plain = dataclasses.replace(config, model=dataclasses.replace(config.model, remat="none", context="auto"))
    expected, expected_gradients = on_one_device(plain)
    loss, gradients = loss_and_gradients(ROWS, config, make_mesh(layout))
    assert loss == pytest.approx(expected, rel=of_loss)
    assert gradients.keys() == expected_gradients.keys()
    for name, value in expected_gradients.items():
        norm = np.linalg.norm(value)
        assert norm > 0, name
        assert np.linalg.norm(gradients[name]) == pytest.approx(norm, rel=of_gradients), name
        assert np.linalg.norm(gradients[name] - value) < of_gradients * norm, name


def name_of(layout: MeshConfig) -> str:
    return "x".join(map(str, dataclasses.astuple(layout)))


@pytest.mark.parametrize("layout", LAYOUTS, ids=name_of)
def test_every_layout_in_float32(layout):
    assert_equal(layout, config_of(layout), 1e-6, 1e-4)


FEW = [MeshConfig(2, 2, 2, 1), MeshConfig(1, 2, 2, 2), MeshConfig(1, 1, 8, 1)]


@pytest.mark.parametrize("layout", FEW, ids=name_of)
def test_some_layouts_in_float64(layout):
    assert_equal(layout, config_of(layout, dtype="float64"), 1e-10, 1e-10)


@pytest.mark.parametrize("kind", ["ring", "all_to_all"])
@pytest.mark.parametrize("remat", ["blocks", "attention", "offload"])
def test_rematerialised_with_rows_over_devices(remat, kind):
    assert_equal(MeshConfig(2, 2, 2, 1), config_of(remat=remat, context=kind), 1e-6, 1e-4)


@pytest.mark.nightly
@pytest.mark.parametrize("remat", ["none", "blocks", "attention", "offload"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=name_of)
def test_everything_with_everything(layout, dtype, remat):
    tolerances = (1e-6, 1e-4) if dtype == "float32" else (1e-10, 1e-10)
    assert_equal(layout, config_of(layout, dtype=dtype, remat=remat), *tolerances)
