"""The distance of EfficientNet-Lite0's activations, with random weights; tests/parity compares the published ones."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_observer import random_observer

from vdit.models.features import efficientnet


@pytest.fixture(scope="module")
def measure():
    weights = random_observer()
    return jax.jit(jax.value_and_grad(lambda a, b: efficientnet.feature_distance(weights, a, b)))


def test_it_is_zero_of_equals_grows_with_noise_and_has_gradients(measure):
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (2, 32, 32, 3)).astype(np.float32)
    frames[1] = 0.3  # flat: whole places where no unit is active
    noise = rng.normal(size=frames.shape).astype(np.float32)
    values = []
    for level in (0.0, 0.05, 0.3):
        value, grad = measure(jnp.asarray(frames + level * noise), jnp.asarray(frames))
        assert np.isfinite(np.asarray(grad)).all()
        assert level == 0 or np.abs(np.asarray(grad)).max() > 0
        values.append(float(value))
    assert values[0] == pytest.approx(0, abs=1e-9)
    assert 1e-6 < values[1] < values[2] < 4
