"""Samples of a model of the film: sizes, lengths and frame rates are those of pixels, also where data are latents."""

import types

import numpy as np
import pytest

from launch.experiments.runs import samples
from vdit.config import Config, DataConfig
from vdit.generation import LatentGenerator
from vdit.io.files import read_json


class Clips:
    """Eight clips that are read by number."""

    def __init__(self, shape: tuple[int, ...], fps: float) -> None:
        self.shape, self.fps = shape, fps

    def index(self, split):
        found = types.SimpleNamespace(fps=np.full(8, self.fps), frames=np.full(8, self.shape[0]))
        return type("Index", (), {"__len__": lambda self: 8, **vars(found)})()

    def example(self, split, i):
        return {"caption_short": f"Shot {i}."}

    def read_clip(self, split, i, start, frames, caption):
        video = np.zeros(self.shape, np.uint8)
        return types.SimpleNamespace(video_TYXC=video[:frames], text_ME=np.zeros((2, 4), np.float32))


class Pixels:
    """A generator that notes its requests, and gives grey clips of their size."""

    def generate(self, requests, **settings):
        self.requests = requests
        return [np.full((request.frames, request.height, request.width, 3), 128, np.uint8) for request in requests]


class Latents(Pixels, LatentGenerator):
    """The same, of latents of 4x8x8 pixels."""

    def __init__(self) -> None:
        self.time_stride = 4

    def decode(self, latents_TYXC):
        time, height, width, _ = latents_TYXC.shape
        return np.full((1 + (time - 1) * 4, height * 8, width * 8, 3), 200, np.uint8)


@pytest.mark.parametrize("latents", [False, True])
def test_film_samples_are_of_pixels_and_of_shots_far_apart(tmp_path, latents):
    dataset = Clips((5, 2, 3, 16), 3.0) if latents else Clips((17, 16, 24, 3), 12.0)
    generator = Latents() if latents else Pixels()
    config = Config(data=DataConfig("film", row_tokens=64, max_frames=5 if latents else 17))
    samples.add_film_samples(tmp_path, "film", generator, dataset, config)
    asked = [(request.frames, request.height, request.width, request.fps) for request in generator.requests]
    assert asked == [(17, 16, 24, 12.0)] * 8
    assert [request.given_TYXC is not None for request in generator.requests] == [False, True] * 4
    entries = read_json(tmp_path / "samples" / "samples.json", list)
    assert [entry["row"] for entry in entries if entry["column"] == "film"] == [
        "Shot 0.",
        "Shot 2.",
        "Shot 4.",
        "Shot 7.",
    ]
    assert all((tmp_path / "samples" / entry["mp4"]).stat().st_size > 0 for entry in entries)
