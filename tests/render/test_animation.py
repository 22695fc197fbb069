"""Animated grids: every video in its place, and what is shorter stands still at its end."""

import io

import numpy as np
import pytest
from PIL import Image

from vdit.render import animation

VIDEO = np.stack([np.full((16, 20, 3), 40 * t, np.uint8) for t in range(4)])


@pytest.fixture(params=["gif", "png"])
def image(request, tmp_path):
    """A grid of five videos of four frames and one of two, opened again."""
    pictures = animation.grid("abcdef", [("A red ball glides right.", [VIDEO] * 5 + [VIDEO[:2]])], scale=6)
    if request.param == "gif":
        animation.write_gif(tmp_path / "balls.gif", pictures, 5.0)
        return Image.open(tmp_path / "balls.gif")
    return Image.open(io.BytesIO(animation.png(pictures, 5.0)))


def test_the_grid_moves_and_shorter_videos_stand_still_at_their_end(image):
    assert image.n_frames == 4 and image.info["duration"] == 200 and image.info["loop"] == 0
    shown = []
    for t in range(4):
        image.seek(t)
        picture = np.asarray(image.convert("RGB"))
        top, side = animation.LABEL + 10, 20 * 6 + animation.GAP
        shown.append([int(picture[top, animation.GAP + column * side + 10, 0]) for column in (0, 5)])
    assert np.allclose(shown, [[0, 0], [40, 40], [80, 40], [120, 40]], atol=6)
    assert image.info["duration"] == animation.LAST


def test_columns_are_as_wide_as_their_titles():
    (narrow,), (wide,) = (animation.grid([title], [("", [VIDEO[:1]])], scale=1) for title in ("a", "a long title"))
    assert narrow.width == 20 + 2 * animation.GAP < wide.width
