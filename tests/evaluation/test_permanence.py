import numpy as np
import pytest

from data_pipelines.sources.physics.variants import hidden_clip
from vdit.evaluation.balls.framing import ball_boxes_kept, box_kept, subject_in_frame
from vdit.evaluation.balls.permanence import after_wall, clip_score


def clips(wall):
    for i in range(40):
        made = hidden_clip(0, "val", i)
        if bool(made.extra["wall"].size) == wall:
            yield made.clip.video_TYXC, made.clip.truth() | made.extra


@pytest.mark.parametrize("wall", [True, False])
def test_true_clips_score_one_and_lost_or_late_balls_do_not(wall):
    for _, (video, truth) in zip(range(6), clips(wall), strict=False):
        assert clip_score(video, truth) == (1, 1)
        counts_T = after_wall(truth, *video.shape[:1], video.shape[2], video.shape[1])
        assert counts_T.sum() >= 2 and not counts_T[:5].any()
        gone = video.copy()
        gone[6:] = video[0] * 0 + 255
        assert clip_score(gone, truth) == (0, 0)
        late = video.copy()
        late[3:] = video[:-3]  # more than half a second behind: still hidden, or elsewhere
        came, place = clip_score(late, truth)
        assert place < 0.5 and place <= came


def test_subject_in_frame():
    video, truth = next(clips(False))
    caption = "A {} ball glides right."
    colour = next(c for c in ("red", "blue", "yellow", "cyan", "pink") if subject_in_frame(video, caption.format(c)))
    assert subject_in_frame(video, caption.format(colour)) == 1
    x = int(truth["positions"][0] * truth["pixels_per_unit"])
    cut = video[:, :, x:]  # through the middle of the ball
    assert subject_in_frame(cut, caption.format(colour)) == 0
    assert subject_in_frame(video * 0 + 255, caption.format(colour)) == 0
    with pytest.raises(ValueError, match="names no ball"):
        subject_in_frame(video, "nothing")


def test_boxes_under_a_square_crop():
    assert box_kept((0.4, 0.2, 0.6, 0.9), 16 / 9) == 1
    assert box_kept((0.0, 0.0, 1.0, 1.0), 2.0) == pytest.approx(0.5)
    assert box_kept((0.0, 0.0, 0.2, 1.0), 2.0) == 0
    assert box_kept((0.0, 0.0, 1.0, 1.0), 0.5) == pytest.approx(0.5)
    (kept,) = ball_boxes_kept(np.array([[[2.5, 5.0]]]), np.array([1.0]), (15.0, 10.0))
    assert kept == pytest.approx(0.5)  # the crop begins at 2.5
