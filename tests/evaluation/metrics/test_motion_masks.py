"""Motion masks of videos of which it is known what moves, and the score of a folder of them."""

import json

import cli
import numpy as np
import pytest

from vdit.errors import UserError
from vdit.evaluation.metrics import motion_masks
from vdit.evaluation.metrics.motion_masks import (
    MEASURES,
    compare,
    enlargement,
    motion,
    motion_of_clip,
    physics_iq,
    summary,
)
from vdit.evaluation.physics_iq import evaluate_folders, scenes
from vdit.io import video

HEIGHT, WIDTH, SIDE = 64, 96, 16


def square(starts, level: int = 40, rows: int = 24) -> np.ndarray:
    """A dark square on light grey whose left edge is at each of `starts`."""
    video_TYXC = np.full((len(starts), HEIGHT, WIDTH, 3), 220, np.uint8)
    for frame, x in zip(video_TYXC, starts, strict=True):
        frame[rows : rows + SIDE, x : x + SIDE] = level
    return video_TYXC


RIGHT = square(range(8, 72, 8))
STILL = square([8] * 8)
SIZE = HEIGHT // 4, WIDTH // 4


def measures(made: np.ndarray, true: np.ndarray) -> dict[str, float]:
    return compare(motion(made, SIZE), motion(true, SIZE))


def test_a_mask_is_where_grey_values_leave_their_running_mean():
    found = motion(RIGHT, (HEIGHT, WIDTH))
    assert not found.masks_TYX[0].any(), "nothing moves in the first frame"
    # In the second frame the square has left columns 8 to 15 and covers 24 to 31: there 0.7 of 180 grey values remain.
    rows, columns = np.nonzero(found.masks_TYX[1])
    assert rows.min() >= 22 and rows.max() <= 41, "the blur widens by two pixels at most"
    assert columns.min() >= 6 and columns.max() <= 33
    assert found.masks_TYX[1, 26:38, 10:14].all() and found.masks_TYX[1, 26:38, 26:30].all()
    assert not found.masks_TYX[1, 26:38, 18:22].any(), "it was dark and stays dark"
    assert not motion(STILL, (HEIGHT, WIDTH)).masks_TYX.any()


def test_changes_below_the_threshold_and_specks_do_not_move():
    faint = STILL.copy()
    faint[4:, 30:50, 40:60] -= motion_masks.THRESHOLD
    specks = STILL.copy()
    specks[4:, 10, ::7] = 0
    for quiet in (faint, specks):
        assert not motion(quiet, (HEIGHT, WIDTH)).masks_TYX.any()


def test_a_perfect_video_and_one_of_which_nothing_moves():
    assert measures(RIGHT, RIGHT) == {"spatial": 1, "spatiotemporal": 1, "weighted_spatial": 1, "mse": 0}
    assert measures(STILL, STILL) == {"spatial": 1, "spatiotemporal": 1, "weighted_spatial": 1, "mse": 0}
    frozen = measures(STILL, RIGHT)
    assert frozen["spatial"] == frozen["weighted_spatial"] == 0 and frozen["mse"] > 0
    assert frozen["spatiotemporal"] == pytest.approx(1 / 8), "both masks of the first frame are empty"


def test_the_right_place_at_the_wrong_time_is_seen_by_the_spatiotemporal_measure():
    late = square([8, 8, 8, *range(8, 48, 8)])
    found = measures(late, RIGHT)
    assert found["spatiotemporal"] < found["spatial"] < 1
    backwards = measures(RIGHT[::-1], RIGHT)
    assert backwards["spatial"] > 0.8 > 0.5 > backwards["spatiotemporal"]


def test_measures_by_hand():
    masks = np.zeros((2, 2, 4, 4), bool)  # (videos, frames, rows, columns)
    masks[0, 0, :, :2] = masks[0, 1, :, :2] = True
    masks[1, 0, :, 1:3] = masks[1, 1, :2, :1] = True
    frames = np.zeros((2, 2, 4, 4, 3), np.float32)
    frames[1] = 0.5
    a, b = (motion_masks.Motion(frames[i], masks[i]) for i in range(2))
    assert compare(a, b) == {
        "spatial": pytest.approx((2 + 4) / (8 + 4)),
        "spatiotemporal": pytest.approx((4 / 12 + 2 / 8) / 2),
        "weighted_spatial": pytest.approx((2 * 0.5 + 4 * 0.5) / (8 + 4 * 0.5)),
        "mse": 0.25,
    }


def test_the_score_of_a_second_take_is_100():
    between = {"spatial": 0.6, "spatiotemporal": 0.5, "weighted_spatial": 0.4, "mse": 0.01}
    assert physics_iq(between, between) == pytest.approx(100)
    half = {"spatial": 0.3, "spatiotemporal": 0.25, "weighted_spatial": 0.2, "mse": 0.03}
    assert physics_iq(half, between) == pytest.approx(100 * (0.5 - 0.02))
    assert physics_iq({**half, "mse": 0.9}, between) == 0
    assert physics_iq({**between, "spatial": 1.0}, between) == 100


def test_a_summary_tells_seeds_from_videos():
    values = lambda *numbers: [dict.fromkeys(MEASURES, x) for x in numbers]  # noqa: E731
    found = summary([values(0.2, 0.4), values(0.4, 0.6)])["spatial"]
    assert found["mean"] == pytest.approx(0.4) and found["seeds"] == pytest.approx([0.3, 0.5])
    assert found["spread"] == pytest.approx(np.std([0.3, 0.5], ddof=1))
    assert found["interval"] == pytest.approx([0.3, 0.5])
    assert "spread" not in summary([values(0.2, 0.4)])["mse"]


def test_small_clips_are_enlarged():
    assert [enlargement(*size) for size in ((16, 20), (128, 90), (480, 720))] == [8, 2, 1]
    small = np.full((6, 16, 20, 3), 255, np.uint8)
    for i, frame in enumerate(small):
        frame[6:10, 2 + 2 * i : 6 + 2 * i] = 30
    found = motion_of_clip(small)
    assert found.masks_TYX.shape == (6, 32, 40) and found.masks_TYX[1:].any((1, 2)).all()
    own_size = motion(small, (16, 20)).masks_TYX
    assert own_size.mean() > 1.2 * found.masks_TYX.mean(), "there, the blur alone is as wide as what moves"


def folders(tmp_path, seeds: int = 2):
    """One view of a scene in the layout of Physics-IQ: takes, and the generated videos of some seeds."""
    real = tmp_path / "real"
    real.mkdir()
    take = square([*range(8, 72, 8), *range(64, 8, -8)])
    other = square([*range(8, 72, 8), *range(64, 8, -8)], rows=26)
    video.write_mp4(real / "0001_testing-videos_8FPS_perspective-left_take-1_trimmed-square.mp4", take, 8.0)
    video.write_mp4(real / "0002_testing-videos_8FPS_perspective-left_take-2_trimmed-square.mp4", other, 8.0)
    made = []
    for seed in range(seeds):
        made.append(tmp_path / f"seed{seed}")
        made[-1].mkdir()
        moved = square([*range(8, 72, 8), *range(64, 8, -8)], rows=24 + 2 * seed)
        video.write_mp4(made[-1] / "0001_mine.mp4", moved, 8.0)
    return made, real


def test_a_folder_of_videos_is_scored(tmp_path, capfd):
    made, real = folders(tmp_path)
    found = evaluate_folders(made, real)
    assert found["scenes"] == 1 and set(MEASURES) < set(found)
    assert found["spatial"]["seeds"][0] == pytest.approx(1, abs=0.02), "the first take itself, but for the codec"
    assert found["spatial"]["seeds"][1] == pytest.approx(found["between_takes"]["spatial"], abs=0.02)
    assert found["physics_iq"]["seeds"] == [100, pytest.approx(100, abs=3)] and found["physics_iq"]["spread"] < 3

    done = cli.runner(capfd)(
        "vdit.evaluate", "--measures=motion_masks", f"--videos={made[0]},{made[1]}", f"--real={real}", "--json"
    )
    assert done.status == 0, done.err
    assert json.loads(done.out) == {"motion_masks": found}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda made, real: (made[0] / "0001_mine.mp4").unlink(), "seed0 holds 0 videos named 0001_"),
        (
            lambda made, real: next(real.glob("*take-2*")).unlink(),
            "holds only take-1 of perspective-left of trimmed-squ",
        ),
        (lambda made, real: next(real.glob("*take-2*")).rename(real / "x.mp4"), "x.mp4 is not named ID_testing-videos"),
        (lambda made, real: [path.unlink() for path in real.glob("*")], "real holds no .mp4"),
        (lambda made, real: made[0].rename(made[0].with_name("gone")), "seed0 is not a folder"),
    ],
)
def test_folders_that_do_not_fit_are_refused(tmp_path, spoil, message):
    made, real = folders(tmp_path)
    spoil(made, real)
    with pytest.raises(UserError, match=message):
        scenes(made, real)


def test_videos_that_cannot_be_compared_are_refused(tmp_path):
    made, real = folders(tmp_path, seeds=1)
    path = made[0] / "0001_mine.mp4"
    video.write_mp4(path, STILL, 8.0)
    with pytest.raises(UserError, match="0001_mine.mp4 has 8 frames, 15 of"):
        evaluate_folders(made, real)
    video.write_mp4(path, np.concatenate([STILL, STILL]), 16.0)
    with pytest.raises(UserError, match="0001_mine.mp4 has 16 frames/s, .* 8; give --real at the rate"):
        evaluate_folders(made, real)
    path.write_text("no video")
    with pytest.raises(UserError, match="0001_mine.mp4 cannot be read as a video"):
        evaluate_folders(made, real)
