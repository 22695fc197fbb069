"""EfficientNet-Lite0 with random weights: no network is needed to see that its features are used."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from vdit.models.features import efficientnet


def random_observer() -> dict[str, Any]:
    """Weights as `efficientnet.load_weights` gives them."""
    rng = np.random.default_rng(0)

    def layer(size: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
        scale = (2 / (size * size * inputs)) ** 0.5
        return rng.normal(0, scale, (size, size, inputs, outputs)), rng.normal(0, 0.1, outputs)

    out: dict[str, Any] = {"stem": layer(3, 3, 32), "blocks": []}
    channels, kinds = 32, iter(efficientnet.blocks())
    for stage in efficientnet.STAGES:
        for _ in range(stage.repeats):
            kernel, _, expands, _ = next(kinds)
            inner = channels * stage.expand
            block = {"depthwise": layer(kernel, 1, inner), "project": layer(1, inner, stage.channels)}
            if expands:
                block["expand"] = layer(1, channels, inner)
            out["blocks"].append(block)
            channels = stage.channels
    out["head"] = layer(1, channels, efficientnet.FEATURES)
    return jax.tree.map(lambda array: jax.numpy.asarray(array, jax.numpy.float32), out)
