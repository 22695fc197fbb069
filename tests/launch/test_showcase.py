"""The animated grid of the README: what its columns are given, and the file."""

import numpy as np
from PIL import Image

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import parse_world
from launch import showcase


def test_each_column_is_given_what_its_title_says():
    clip = make_clip(1, "val", 0, parse_world("captioned"))
    caption, first, three, last, box = showcase._requests(clip, np.zeros((2, 4), np.float32))
    assert caption.given_TYXC is None and caption.text_ME.shape == (2, 4)
    assert len(first.given_TYXC) == 1 and len(three.given_TYXC) == 3
    assert last.mask_TYX.any((1, 2)).tolist() == [False] * (last.frames - 2) + [True] * 2
    assert box.mask_TYX[:2].all() and not box.mask_TYX[2:, 4:-4, 4:-4].any() and box.mask_TYX[2:, :4].all()
    assert len(showcase.WAYS) == 1 + 5


def test_the_grid_moves_and_shorter_clips_stand_still_at_their_end(tmp_path):
    video = np.stack([np.full((16, 20, 3), 40 * t, np.uint8) for t in range(4)])
    rows = [("A red ball glides right.", [video] * 5 + [video[:2]])]
    showcase._write(tmp_path / "balls.gif", rows, 5.0)
    with Image.open(tmp_path / "balls.gif") as image:
        assert image.n_frames == 4 and image.info["duration"] == 200
        shown = []
        for t in range(4):
            image.seek(t)
            picture = np.asarray(image.convert("RGB"))
            top, side = showcase.LABEL + 10, 20 * 6 + showcase.GAP
            shown.append([int(picture[top, showcase.GAP + column * side + 10, 0]) for column in (0, 5)])
    assert np.allclose(shown, [[0, 0], [40, 40], [80, 40], [120, 40]], atol=6)
