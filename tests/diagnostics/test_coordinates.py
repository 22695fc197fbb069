"""muP's coordinate check: movement does not depend on width, and does with one rate for all."""

import dataclasses

import numpy as np
from small_model import INTERFACE, clips, one_device, pack

from vdit.config import Config, ModelConfig, OptimizerConfig
from vdit.diagnostics.coordinates import coordinate_check, slopes

CONFIG = Config(
    model=ModelConfig(width=16, depth=1, head_width=16, base_width=16, attention_block=32),
    optimizer=OptimizerConfig(learning_rate=2e-2, weight_decay=0.0),
)


def test_activations_move_alike_at_every_width_under_mup_only():
    batches = [pack([clips(first)]) for first in (1, 11)]
    found = coordinate_check(CONFIG, INTERFACE, batches, one_device(), (16, 64))
    assert found[0].moved_TK.shape == (3, 3) and not found[0].moved_TK[0].any()
    assert np.abs(slopes(found)).max() < 0.3, slopes(found)
    assert (found[1].size_TK[:, :2] / found[0].size_TK[:, :2]).max() < 1.3  # the prediction starts at 0
    wide = coordinate_check(CONFIG, INTERFACE, batches, one_device(), (64,), muP=False)
    plain = slopes([found[0], *wide])  # at the base width both are the same
    assert plain.max() > 0.6, plain


def test_muon_moves_activations_alike_at_every_width_and_depth():
    """Matrices by sqrt(outputs / inputs), branches by base_depth / depth; without that, depth shows."""
    batches = [pack([clips(first)]) for first in (1, 11)]
    muon = dataclasses.replace(CONFIG.optimizer, method="muon", muon_rate=0.05)
    config = dataclasses.replace(CONFIG, optimizer=muon)
    found = coordinate_check(config, INTERFACE, batches, one_device(), (16, 64))
    assert np.abs(slopes(found)).max() < 0.3, slopes(found)

    def last_stream(depth: int, base_depth: int) -> float:
        model = dataclasses.replace(config.model, depth=depth, base_depth=base_depth)
        deep = dataclasses.replace(config, model=model)
        (measured,) = coordinate_check(deep, INTERFACE, batches, one_device(), (16,))
        return float(measured.moved_TK[-1, -2] - measured.moved_TK[-1, 0])

    shallow = last_stream(1, 1)
    assert 0.6 < last_stream(4, 1) / shallow < 1.5
    assert last_stream(4, 0) / shallow > 2
