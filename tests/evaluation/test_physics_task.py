"""Continued clips are scored beside baselines, and apart by what is out of distribution."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from data_pipelines.sources.physics.clips import make_clip
from data_pipelines.sources.physics.world import WORLDS
from vdit.errors import UserError
from vdit.evaluation.balls.physics_task import physics_clips, physics_errors
from vdit.patches import Patch

WORLD = WORLDS["bounce"]


@dataclasses.dataclass
class Balls:
    """Clips of a world, as `vdit.evaluation.clips.Clips`."""

    path = Path("balls")
    patch = Patch(2, 4, 4)
    splits = ("train", "val", "ood")
    meta = {"captions": []}
    size: int = 16

    def clip(self, split, i):
        return make_clip(0, split, i, WORLD)

    def frames(self, split):
        return np.array([len(self.clip(split, i).video_TYXC) for i in range(self.size)])

    def example(self, split, i):
        return {**self.clip(split, i).truth(), "id": i}

    def read_clip(self, split, i, start_frame=0, frames=0, caption=None):
        clip = self.clip(split, i)
        text = np.zeros((0, 4), np.float32)
        return SimpleNamespace(video_TYXC=clip.video_TYXC, text_ME=text, fps=clip.fps, id=clip.id)


class Generates:
    """Continues clips by a rule from what is given."""

    def __init__(self, continued):
        self.continued, self.steps = continued, None

    def generate(self, requests, steps):
        self.steps = steps
        return [self.continued(request) for request in requests]


def frozen(request):
    given = request.given_TYXC
    return np.concatenate([given, np.repeat(given[-1:], request.frames - len(given), 0)])


def test_a_generator_that_freezes_scores_as_the_frozen_baseline():
    found = physics_errors(Generates(frozen), Balls(), "val", 12)
    assert found["mean"] == pytest.approx(found["baselines"]["frozen"], rel=0.02)
    assert found["baselines"]["floor"] < 0.05 < found["baselines"]["straight"] < found["mean"]
    assert "apart" not in found and found["clips"] == 12 and found["lost"] == 0


def test_out_of_distribution_stands_apart_by_what_is_out():
    found = physics_errors(Generates(frozen), Balls(), "ood", 16)
    assert list(found["apart"]) == ["slow", "fast", "small"]
    assert sum(part["clips"] for part in found["apart"].values()) == found["clips"]
    means = {odd: part["mean"] for odd, part in found["apart"].items()}
    assert means["slow"] < 1 < means["small"] < 4 < means["fast"]
    for part in found["apart"].values():
        assert part["mean"] == pytest.approx(part["baselines"]["frozen"], rel=0.05)


def test_only_clips_that_leave_something_to_generate_count():
    balls = Balls()
    assert physics_clips(balls, "val", 5) == [0, 1, 2, 3, 4]
    balls.patch = Patch(10, 4, 4)
    with pytest.raises(UserError, match="no clip of split val"):
        physics_errors(Generates(frozen), balls, "val", 5)
