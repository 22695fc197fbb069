"""Which times a sampler goes through."""

import numpy as np
import pytest
from small_model import clips

from vdit.diffusion.flow import shift_time
from vdit.diffusion.schedules import SCHEDULES, schedule
from vdit.errors import UserError
from vdit.patches import Grid


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("steps", [1, 2, 10])
@pytest.mark.parametrize("name", SCHEDULES)
def test_times_fall_from_noise_to_data_with_the_shift_of_training(name, steps, shift):
    for example in clips():
        times_S = schedule(name, steps, example.grid, shift)
        assert times_S.shape == (steps + 1,)
        assert times_S[0] == pytest.approx(1, abs=1e-12)
        assert times_S[-1] == 0
        assert (np.diff(times_S) < 0).all()
        plain = SCHEDULES[name](steps)
        expected = np.asarray(shift_time(plain.astype(np.float32), np.array(example.grid))) if shift else plain
        np.testing.assert_allclose(times_S, expected, atol=1e-6)


def test_an_edit_starts_later():
    times_S = schedule("linear", 5, Grid(3, 2, 2), False, start=0.5)
    np.testing.assert_allclose(times_S, np.linspace(0.5, 0, 6))


def test_linear_quadratic_begins_with_small_even_steps():
    steps = np.diff(SCHEDULES["linear_quadratic"](20))
    np.testing.assert_allclose(steps[:10], -0.0025, atol=1e-12)
    assert (np.diff(steps[10:]) < 0).all()


def test_unknown_schedule():
    with pytest.raises(UserError, match="--schedule=even is not one of linear, cosine, linear_quadratic"):
        schedule("even", 3, Grid(1, 1, 1), True)
