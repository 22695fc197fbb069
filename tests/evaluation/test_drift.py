"""What becomes of long videos, on videos of which it is known."""

import numpy as np
import pytest

from data_pipelines.sources.physics.render import render
from vdit.evaluation.balls.drift import drift, level
from vdit.palette import COLOURS


def video(frames: int, last: int) -> np.ndarray:
    """Two balls, of which the second is there in the frames before `last` only; the first one stays where it is."""
    centres = np.tile(np.array([[10.0, 10.0], [28.0, 20.0]]), (frames, 1, 1))
    centres[last:, 1] = -50
    return render(centres, np.array([4.0, 4.0]), np.array([COLOURS["red"], COLOURS["blue"]]), 32, 40)


def test_balls_that_vanish_are_missed():
    found = drift([video(30, 20), video(30, 10)], 10.0)
    assert found["second"] == [1, 2, 3]
    assert found["balls"]["mean"] == [2, 1.5, 1]
    assert (found["balls"]["low"][1], found["balls"]["high"][1]) == (1, 2)
    assert found["ink"]["mean"][0] > found["ink"]["mean"][1] > found["ink"]["mean"][2]


def test_blurred_videos_are_less_sharp():
    sharp = video(10, 10)
    padded = np.pad(sharp.astype(float), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    blurred = np.uint8(sum(padded[:, i : i + 32, j : j + 40] for i in range(3) for j in range(3)) / 9)
    assert drift([blurred], 10.0)["sharpness"]["mean"][0] < 0.8 * drift([sharp], 10.0)["sharpness"]["mean"][0]


def test_the_level_of_videos_of_different_lengths():
    found = level([video(4, 0), video(12, 12)])
    assert found["balls"] == pytest.approx((4 * 1 + 12 * 2) / 16)
    assert found["ink"] == pytest.approx(
        np.mean(np.r_[(255.0 - video(4, 0)).mean((1, 2, 3)), (255.0 - video(12, 12)).mean((1, 2, 3))])
    )
