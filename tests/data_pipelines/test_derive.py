import numpy as np
import pytest

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.deriving import derive
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.physics.clips import COLOURS
from data_pipelines.sources.physics.variants import WALL
from vdit.errors import UserError
from vdit.evaluation.balls.physics import ball_positions, velocity_error


@pytest.fixture(scope="module")
def physics(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "physics"
    build(BuildArgs("physics", str(out), Options(limit=16), text_encoder="none"))
    return Dataset(out)


def test_square_crops_know_where_their_balls_are(physics, tmp_path):
    count = derive(str(physics.path), str(tmp_path / "square"), side=32)
    square = Dataset(tmp_path / "square")
    assert count == sum(physics.size(split) for split in physics.splits)
    index = square.index("train")
    assert (index.height == 32).all() and (index.width == 32).all()
    np.testing.assert_array_equal(index.id, physics.index("train").id)
    checked = 0
    for i in range(16):
        clip = square.example("train", i)
        scale = float(clip["pixels_per_unit"])
        radii = clip["radii"] * scale
        true_TB2 = clip["positions"].reshape(len(clip["video"]), len(radii), 2) * scale
        seen_TB2, found_TB = ball_positions(clip["video"], clip["colours"].reshape(-1, 3), radii)
        inside_TB = ((true_TB2 > radii[:, None] + 2) & (true_TB2 < 30 - radii[:, None])).all(-1) & found_TB
        if len(radii) == 1 and inside_TB.any():
            assert np.abs(seen_TB2 - true_TB2)[inside_TB].max() < 0.3
            checked += 1
    assert checked > 3
    again = (tmp_path / "square" / "vdit.json").stat().st_mtime_ns
    derive(str(physics.path), str(tmp_path / "square"), side=32)
    assert (tmp_path / "square" / "vdit.json").stat().st_mtime_ns == again
    assert velocity_error(clip["video"], clip).intervals >= 0


def test_square_crops_know_where_their_wall_is(tmp_path):
    build(BuildArgs("physics-hidden", str(tmp_path / "hidden"), Options(limit=4), text_encoder="none"))
    derive(str(tmp_path / "hidden"), str(tmp_path / "square"), side=32)
    square, walls = Dataset(tmp_path / "square"), 0
    for i in range(square.size("ood")):  # always a wall
        clip = square.example("ood", i)
        middle = float(np.mean(clip["wall"]) * clip["pixels_per_unit"])
        if 1 <= middle < 31:
            nearest = np.abs(clip["video"][0, :, int(middle)].astype(int) - COLOURS[WALL]).max()
            assert nearest <= 2
            walls += 1
    assert walls


def test_stills_are_the_middle_frames(physics, tmp_path):
    derive(str(physics.path), str(tmp_path / "stills"), stills=True)
    stills = Dataset(tmp_path / "stills")
    assert (stills.index("val").frames == 1).all()
    for i in range(3):
        still, clip = stills.example("train", i), physics.example("train", i)
        np.testing.assert_array_equal(still["video"][0], clip["video"][len(clip["video"]) // 2])
        assert still["caption_short"] == clip["caption_short"] and still["id"] != clip["id"]
        balls = len(clip["radii"])
        middle = clip["positions"].reshape(len(clip["video"]), balls, 2)[len(clip["video"]) // 2]
        np.testing.assert_array_equal(still["positions"].reshape(balls, 2), middle)


def test_mistakes_are_named(physics, tmp_path):
    for options in ({}, {"side": 32, "stills": True}):
        with pytest.raises(UserError, match="one of --square"):
            derive(str(physics.path), str(tmp_path / "x"), **options)
    with pytest.raises(UserError, match="multiple of the patch"):
        derive(str(physics.path), str(tmp_path / "x"), side=30)
    derive(str(physics.path), str(tmp_path / "y"), side=24)
    with pytest.raises(UserError, match="another data set"):
        derive(str(physics.path), str(tmp_path / "y"), side=32)
