"""Guidance, its interval and its rescaling."""

import numpy as np

from vdit.diffusion.guidance import guide, rescale, scales


def test_guidance():
    conditional, unconditional = np.array([3.0]), np.array([1.0])
    assert guide(conditional, unconditional, 1.0) == 3
    assert guide(conditional, unconditional, 0.0) == 1
    assert guide(conditional, unconditional, 2.5) == 6


def test_rescaling_takes_back_a_share_of_the_spread():
    guided = np.array([-2.0, 2.0])
    np.testing.assert_allclose(rescale(guided, 2.0, 1.0, 0.0), guided)
    np.testing.assert_allclose(rescale(guided, 2.0, 1.0, 1.0), guided / 2)
    np.testing.assert_allclose(rescale(guided, 2.0, 1.0, 0.5), 0.75 * guided)


def test_guidance_acts_in_its_interval():
    times = np.array([1.0, 0.8, 0.5, 0.2, 0.0])
    np.testing.assert_array_equal(scales(times, 3.0, (0.2, 0.8)), [1, 3, 3, 1, 1])
    np.testing.assert_array_equal(scales(times, 3.0, (0.0, 1.0)), [3, 3, 3, 3, 1])
