import importlib

import pytest

from data_pipelines.reading.row_lengths import row_lengths
from vdit import flops
from vdit.config import Config
from vdit.config_dict import build

SIZES = {"s": 0.024, "b": 0.093, "l": 0.315, "xl": 0.462, "2b": 2.06, "5b": 5.07, "10b": 10.09}
"""Billions of parameters."""


@pytest.mark.parametrize("name", SIZES)
def test_named_sizes(name):
    module = importlib.import_module(f"configs.vdit_{name}")
    config = build(module.get_config().to_dict(), Config)
    rows, model = row_lengths(config), config.model
    shape = flops.ModelShape(model.width, model.depth, rows.interface.patch, rows.interface.text, model.feed_forward)
    assert flops.parameters(shape).total / 1e9 == pytest.approx(SIZES[name], rel=0.01)
    filled = (rows.patches + rows.caption_tokens).sum() / len(rows) / config.data.row_tokens
    assert filled > 0.94 and config.data.row_tokens % 512 == 0
    assert (rows.interface.patch, rows.interface.text) == (64, 4096)


def test_the_largest_has_the_width_depth_and_heads_of_wan_14b():
    model = build(importlib.import_module("configs.vdit_10b").get_config().to_dict(), Config).model
    assert (model.width, model.feed_forward_width, model.depth, model.heads) == (5120, 13_824, 40, 40)
