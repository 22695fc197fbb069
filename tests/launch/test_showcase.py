"""The animated grid of the README: what its columns are given."""

import numpy as np

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
