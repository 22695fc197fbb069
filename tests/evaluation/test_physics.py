"""The velocity error: its floor on true clips, and that wrong videos get the error they deserve."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.render import EDGE, render
from vdit.evaluation.balls.physics import LOST, RIM, ball_positions, unmix, velocity_error
from vdit.palette import COLOURS

CLIPS = {split: [make_clip(11, split, i) for i in range(60)] for split in ("val", "ood")}
SCALE = 3.2


def straight(velocities, radius=1.0, frames=13, side=48):
    """Balls of different colours moving in straight lines: (video, truth)."""
    velocities = np.asarray(velocities, np.float64)
    balls = len(velocities)
    start = np.linspace(4, 11, balls)[:, None] * [0, 1] + [7.5, 0] if balls > 1 else np.array([[7.5, 7.5]])
    positions = start + velocities * np.arange(frames)[:, None, None] / 10
    colours = np.array(list(COLOURS.values())[:balls], np.uint8)
    radii = np.full(balls, radius)
    video = render(positions * SCALE, radii * SCALE, colours, side, side)
    return video, {
        "kind": "uniform",
        "colours": colours,
        "radii": radii,
        "positions": positions,
        "velocities": np.broadcast_to(velocities, positions.shape),
        "pixels_per_unit": SCALE,
        "fps": 10.0,
    }


def test_rim_is_what_the_renderer_draws():
    assert RIM == EDGE


@pytest.mark.parametrize(("split", "mean", "worst"), [("val", 0.02, 0.06), ("ood", 0.03, 0.15)])
def test_floor_on_true_clips(split, mean, worst):
    results = [velocity_error(clip.video_TYXC, clip.truth()) for clip in CLIPS[split]]
    errors = [result.error for result in results]
    assert 0 < np.mean(errors) < mean and max(errors) < worst
    assert all(result.lost == 0 and result.intervals > 0 for result in results)


def test_errors_per_interval_agree_with_the_mean():
    for clip in CLIPS["val"][:10]:
        result = velocity_error(clip.video_TYXC, clip.truth(), given=3)
        assert result.error_KB.shape == (len(clip.positions) - 1, len(clip.radii))
        assert np.isnan(result.error_KB[:2]).all() and np.isfinite(result.error_KB[2]).all()
        assert np.isfinite(result.error_KB).sum() == result.intervals
        assert result.error == pytest.approx(np.nanmean(result.error_KB))


def test_frozen_balls_err_by_their_speed():
    video, truth = straight([[2.0, 0.5]])
    video[5:] = video[4]
    assert velocity_error(video, truth).error == pytest.approx(np.hypot(2, 0.5), abs=0.03)
    for clip in CLIPS["val"]:
        video = clip.video_TYXC.copy()
        video[5:] = video[4]
        assert velocity_error(video, clip.truth()).error > 0.4


@pytest.mark.parametrize(
    ("wrong", "error"), [([-2.0, 0.0], 4.0), ([0.0, 2.0], 8**0.5), ([2.5, 0.0], 0.5), ([1.0, 0.0], 1.0)]
)
def test_another_velocity_errs_by_the_difference(wrong, error):
    video, _ = straight([wrong])
    _, truth = straight([[2.0, 0.0]])
    assert velocity_error(video, truth, given=0).error == pytest.approx(error, abs=0.03)


def test_wrong_ball_moves():
    video, _ = straight([[1.0, 0.0], [-2.0, 0.0]])
    _, truth = straight([[-2.0, 0.0], [1.0, 0.0]])
    assert velocity_error(video, truth).error == pytest.approx((min(3, 4) + min(3, 2)) / 2, abs=0.03)


@pytest.mark.parametrize("speed", [3.0, 0.2])
def test_a_vanished_ball_is_the_worst_answer(speed):
    video, truth = straight([[speed, 0.0]])
    video[8:] = 255
    result = velocity_error(video, truth)
    worst = max(2 * speed, LOST)
    assert result.intervals == 8 and result.lost == pytest.approx(5 / 8)
    assert np.nanmean(result.error_KB[7:]) == pytest.approx(worst, rel=1e-5)
    assert np.nanmean(result.error_KB[4:7]) < 0.1


def test_other_colour_noise_and_nothing_are_not_the_ball():
    video, truth = straight([[2.0, 0.0]])
    noise = np.random.default_rng(0).integers(0, 256, video.shape, np.uint8)
    grey = np.full_like(video, 128)
    for other in (noise, grey, np.zeros_like(video), np.full(video.shape, np.nan, np.float32)):
        result = velocity_error(other, truth)
        assert result.lost > 0.7 and result.error > 3
    blue = video[..., [2, 1, 0]]  # the red ball painted blue
    assert velocity_error(blue, truth).lost == 1


def test_frames_out_of_view_do_not_count():
    video, truth = straight([[4.0, 0.0]], frames=25)
    result = velocity_error(video, truth)
    last = 7.5 + 4 * np.arange(25) / 10 <= 15 - 1 - EDGE / SCALE
    assert result.intervals == last.sum() - 5 and result.error < 0.03
    video[last.sum() :] = 0  # whatever happens there
    assert velocity_error(video, truth).error == pytest.approx(result.error)
    assert np.isnan(velocity_error(video[:5], {**truth, "positions": truth["positions"][:5]}).error)


def test_length_must_match():
    video, truth = straight([[1.0, 0.0]])
    with pytest.raises(ValueError, match="12 frames, the truth 13"):
        velocity_error(video[:12], truth)


def test_truth_may_be_flat_and_video_float():
    clip = next(c for c in CLIPS["val"] if len(c.radii) == 2)
    truth = clip.truth()
    assert all(isinstance(v, str) or v.ndim <= 1 for v in truth.values())
    shaped = {**truth, "colours": clip.colours, "positions": clip.positions, "velocities": clip.velocities}
    assert velocity_error(clip.video_TYXC, truth).error == velocity_error(clip.video_TYXC, shaped).error
    assert velocity_error(clip.video_TYXC.astype(np.float32), truth).error < 0.05


@settings(max_examples=40)
@given(st.floats(-1, 1), st.floats(-1, 1), st.sampled_from([0.3, 0.7, 1.5]), st.floats(0, 6))
def test_positions_withstand_noise(dx, dy, radius, noise):
    centre = np.array([[[24 + dx, 24 + dy]]])
    colour = np.array([COLOURS["cyan"]], np.uint8)
    video = render(centre, np.array([radius * SCALE]), colour, 48, 48).astype(np.float32)
    video += np.random.default_rng(1).normal(0, noise, video.shape)
    seen, found = ball_positions(video, colour, np.array([radius * SCALE]))
    assert found.all()
    np.testing.assert_allclose(seen, centre, atol=0.02 + 0.04 * noise)


@pytest.mark.parametrize("one", COLOURS)
@pytest.mark.parametrize("two", COLOURS)
def test_any_two_colours_unmix(one, two):
    if one == two:
        return
    colours = np.array([COLOURS[one], COLOURS[two]], np.float64)
    for share in ([1, 0], [0, 1], [0.4, 0.6], [0.2, 0.3]):
        pixel = 255 - np.array(share) @ (255 - colours)
        np.testing.assert_allclose(unmix(np.round(pixel)[None, None, None], colours)[:, 0, 0, 0], share, atol=0.015)
