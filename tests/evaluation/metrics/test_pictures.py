"""Blocks and stillness are seen where they are, and not elsewhere."""

import numpy as np
import pytest

from vdit.evaluation.metrics.pictures import blockiness, motion


def noise(shape=(2, 32, 48, 3), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def test_noise_has_no_blocks_and_a_mosaic_is_nothing_else():
    assert blockiness(noise(), 8, 16) == pytest.approx(1, abs=0.05)
    mosaic = noise((2, 4, 3, 3)).repeat(8, axis=1).repeat(16, axis=2)
    assert blockiness(mosaic, 8, 16) > 1e6
    assert blockiness(mosaic[:, 4:-4, 8:-8], 8, 16) == 0, "borders of other blocks are inside of these"


def test_a_step_of_one_between_blocks():
    """Differences of 1 inside, and of 2 across the one border between columns; rows do not differ."""
    ramp = np.arange(8)[None, None, :, None] + (np.arange(8) >= 4)[None, None, :, None]
    video = np.broadcast_to(ramp, (1, 8, 8, 3)).astype(np.uint8)
    # Across: 8 differences of 2 between columns, 8 of 0 between rows. Inside: 48 of 1, 48 of 0.
    assert blockiness(video, 4, 4) == pytest.approx(2)


def test_motion_is_the_mean_change():
    still = noise((1, 8, 8, 3)).repeat(5, axis=0)
    assert motion(still) == 0
    steps = np.full((3, 4, 4, 3), [[[[10]]], [[[13]]], [[[8]]]], np.uint8)
    assert motion(steps) == 4
