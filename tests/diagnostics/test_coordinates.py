"""muP's coordinate check: movement does not depend on width, and does with one rate for all."""

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
