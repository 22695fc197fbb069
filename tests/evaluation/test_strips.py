"""Strips of generated clips, from a generator that stands in for a model."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny

from vdit.config import Modes
from vdit.evaluation import strips
from vdit.patches import Patch


@dataclasses.dataclass
class Clips:
    """Grey clips of two sizes, the second too short to be continued from two groups."""

    path = Path("clips")
    patch = Patch(4, 8, 8)
    splits = ("train", "val")
    captions: tuple[str, ...] = ("caption",)
    autoencoder: str = "pixels"

    @property
    def meta(self):
        return {"captions": self.captions, "autoencoder": {"name": self.autoencoder}}

    def size(self, split):
        return 2

    def read_clip(self, split, i, start_frame=0, frames=0, caption=None):
        assert split == "val"
        shape = ((9, 16, 24, 3), (5, 32, 16, 3))[i]
        return SimpleNamespace(id=i, fps=8.0, video_TYXC=np.full(shape, 100, np.uint8), text_ME=np.zeros((1, 4)))


@pytest.fixture
def asked(monkeypatch):
    """The requests that the generator is given; it answers with black videos."""
    found = []

    class Generator:
        def generate(self, requests, **settings):
            found.append(requests)
            return [np.zeros((r.frames, r.height, r.width, 3), np.uint8) for r in requests]

    monkeypatch.setattr(strips, "generator_of", lambda run: Generator())
    return found


def run(**modes: float) -> SimpleNamespace:
    return SimpleNamespace(config=tiny.change(tiny.tiny_config(), diffusion={"modes": Modes(**modes)}))


def test_true_strips_stand_over_generated_ones(asked):
    found = strips.sample_strips(run(text=0.5, two_groups=0.5), Clips(), 2)
    assert set(found) == {"continued", "text"}
    [[continued], both] = asked
    assert len(continued.given_TYXC) == 5 and continued.frames == 9, "the shorter clip leaves nothing to continue"
    assert [request.given_TYXC for request in both] == [None, None]
    picture = found["continued"]
    upper, lower = np.split(picture, 2)
    assert picture.dtype == np.uint8 and (upper == 100).any() and not (lower == 100).any() and (lower == 0).any()
    assert found["text"].shape[0] > 2 * upper.shape[0], "two clips, and white between them"


@pytest.mark.parametrize(
    ("modes", "given"), [({"first_frame": 1.0}, 1), ({"head": 1.0}, 5), ({"first_frame": 0.5, "two_groups": 0.5}, 5)]
)
def test_what_is_given_is_what_the_run_was_trained_for(asked, modes, given):
    assert set(strips.sample_strips(run(**modes), Clips(), 1)) == {"continued"}
    assert len(asked[0][0].given_TYXC) == given


def test_where_there_is_nothing_to_show(asked):
    assert strips.sample_strips(run(text=1.0), Clips(), 0) == {}
    assert strips.sample_strips(run(text=1.0), Clips(captions=()), 2) == {}
    assert strips.sample_strips(run(text=1.0), Clips(autoencoder="causal_vae:W"), 2) == {}
    assert asked == []
