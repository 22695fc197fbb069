"""Baselines of motion: what each must score on motions that are known."""

import numpy as np
import pytest

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import WORLDS
from vdit.evaluation.balls.baselines import frozen_error, straight_error
from vdit.evaluation.balls.physics import velocity_error


def errors(world: str, split: str = "val", count: int = 24) -> dict[str, float]:
    """Mean errors over clips."""
    given = WORLDS[world].given
    clips = [make_clip(5, split, i, WORLDS[world]) for i in range(count)]
    measures = {"frozen": frozen_error, "straight": straight_error, "true": velocity_error}
    return {
        name: float(np.nanmean([measure(clip.video_TYXC, clip.truth(), given).error for clip in clips]))
        for name, measure in measures.items()
    }


def test_a_frozen_ball_errs_by_its_speed():
    clip = make_clip(1, "val", 0, WORLDS["uniform"])
    found = frozen_error(clip.video_TYXC, clip.truth(), 3)
    assert found.error == pytest.approx(np.linalg.norm(clip.velocities[0]), rel=1e-4)
    assert found.lost == 0 and found.intervals == velocity_error(clip.video_TYXC, clip.truth(), 3).intervals


def test_a_straight_line_is_right_about_uniform_motion_alone():
    uniform, bounce, parabola = (errors(world) for world in ("uniform", "bounce", "parabola"))
    assert uniform["straight"] < 0.06 and uniform["true"] < 0.06
    for other in (bounce, parabola):
        assert 4 * other["true"] < min(other["straight"], other["frozen"])


def test_what_was_generated_does_not_matter():
    clip = make_clip(2, "val", 3, WORLDS["bounce"])
    changed = clip.video_TYXC.copy()
    changed[3:] = 255
    for measure in (frozen_error, straight_error):
        assert measure(changed, clip.truth(), 3).error == measure(clip.video_TYXC, clip.truth(), 3).error
