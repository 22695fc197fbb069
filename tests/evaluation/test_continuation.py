"""Continuations of a first frame, between the frame repeated and the true clip."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vdit.evaluation.continuation import compare_continuations, continued
from vdit.patches import Patch


@dataclasses.dataclass(frozen=True)
class Clip:
    id: int
    fps: float
    video_TYXC: np.ndarray
    text_ME: np.ndarray


def moving(count=4, frames=5, seed=0):
    rng = np.random.default_rng(seed)
    return [
        np.stack([np.roll(picture, t, axis=1) for t in range(frames)])
        for picture in rng.integers(0, 256, (count, 16, 24, 3), np.uint8)
    ]


def test_between_the_frame_repeated_and_the_truth():
    true = moving()
    repeated = [np.repeat(video[:1], len(video), axis=0) for video in true]
    half = [(a.astype(float) * 0.5 + b * 0.5).astype(np.uint8) for a, b in zip(true, repeated, strict=True)]
    ways = {"model": half, "repeated": repeated, "perfect": true}
    found = compare_continuations(ways, true, Patch(4, 8, 8), lambda frames: frames.mean((1, 2)) / 255)
    assert set(found) == {*ways, "true"} and "psnr" not in found["true"]
    assert found["perfect"]["psnr"]["value"] == 100 and found["perfect"]["ssim"]["value"] == pytest.approx(1)
    assert found["repeated"]["psnr_gain"] == {"value": 0, "interval": [0, 0]}
    gain = found["model"]["psnr_gain"]
    assert gain["value"] == pytest.approx(found["model"]["psnr"]["value"] - found["repeated"]["psnr"]["value"])
    assert 5 < gain["interval"][0] < gain["value"] < gain["interval"][1] < 7, "half of the error is 6 dB"
    assert found["repeated"]["motion"]["value"] == 0 < found["true"]["motion"]["value"]
    assert found["perfect"]["kernel"]["value"] == pytest.approx(0, abs=1e-9)
    assert found["true"]["blockiness"] == found["perfect"]["blockiness"]


def test_only_the_first_frames_are_given():
    class Generator:
        def generate(self, requests, **settings):
            self.requests = requests
            return [np.zeros((r.frames, r.height, r.width, 3), np.uint8) for r in requests]

    generator = Generator()
    clips = [Clip(7 + i, 12.0, video, np.zeros((2, 6))) for i, video in enumerate(moving())]
    videos = continued(generator, clips)  # type: ignore[arg-type]
    assert [video.shape for video in videos] == [(5, 16, 24, 3)] * 4
    for request, clip in zip(generator.requests, clips, strict=True):
        np.testing.assert_array_equal(request.given_TYXC, clip.video_TYXC[:1])
        assert request.mask_TYX is None and request.fps == 12
    assert len({request.seed for request in generator.requests}) == 4
