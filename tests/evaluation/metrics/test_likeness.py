"""PSNR and SSIM."""

import numpy as np
import pytest

from vdit.evaluation.metrics.likeness import psnr, ssim

RNG = np.random.default_rng(0)
TRUE = RNG.integers(40, 200, (3, 24, 32, 3)).astype(np.uint8)


def test_psnr_by_hand():
    assert psnr(TRUE + 5, TRUE) == pytest.approx([20 * np.log10(255 / 5)] * 3)
    assert psnr(TRUE, TRUE) == pytest.approx([100] * 3)


def test_ssim_of_a_shift_in_brightness():
    """Of flat frames only the brightness term is left: (2 a b + c) / (a^2 + b^2 + c)."""
    a, b, c = 100.0, 150.0, (0.01 * 255) ** 2
    flat = [np.full((2, 16, 16, 3), value, np.uint8) for value in (a, b)]
    assert ssim(*flat) == pytest.approx([(2 * a * b + c) / (a * a + b * b + c)] * 2)


def test_ssim_orders_and_ends():
    assert ssim(TRUE, TRUE) == pytest.approx([1] * 3)
    noisy = [np.clip(TRUE + RNG.normal(0, s, TRUE.shape), 0, 255).astype(np.uint8) for s in (5, 20, 60)]
    values = [ssim(video, TRUE).mean() for video in noisy]
    assert 1 > values[0] > values[1] > values[2] > 0
    np.testing.assert_allclose(ssim(noisy[0], TRUE), ssim(TRUE, noisy[0]))
