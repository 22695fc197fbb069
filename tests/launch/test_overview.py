"""launch.overview: strips of samples under their captions."""

import json

import numpy as np
from PIL import Image, ImageDraw

from launch import overview


def test_a_block_is_named_by_its_row_as_it_stands(tmp_path):
    name = "Held-out clip 0"
    folder = tmp_path / "samples"
    folder.mkdir()
    Image.new("RGB", (400, 40), "red").save(folder / "a.png")
    sample = {"group": "compute", "row": name, "column": 0.0, "label": "ground truth", "png": "a.png"}
    (folder / "samples.json").write_text(json.dumps([sample]))
    picture = overview.overview(tmp_path, "compute", 1)
    drawn = Image.new("RGB", (picture.shape[1], overview.CAPTION), "white")
    ImageDraw.Draw(drawn).text((overview.GAP, overview.GAP), name, fill="black")
    np.testing.assert_array_equal(picture[: overview.CAPTION], np.asarray(drawn))  # a name of ours is no quotation
    assert (picture[overview.CAPTION + 1, overview.LABEL + 1] == [255, 0, 0]).all()
