"""Two networks that share the times between them: which one is asked at each evaluation."""

import dataclasses

import numpy as np
import pytest
from flax import nnx
from small_model import CONFIG, PATCH, TEXT_WIDTH, one_device

from vdit.config import Config, DataConfig, DiffusionConfig
from vdit.generation import Generator, Request
from vdit.generation.experts import Experts, share_times

HIGH, LOW = 0.5, -0.5
PIXEL = {HIGH: 191, LOW: 64}


class Constant(nnx.Module):
    """Whatever it gets, the clean patch is one number; so what comes out says which network was asked."""

    def __init__(self, value: float):
        self.value = nnx.Param(np.float32(value))

    def __call__(self, noised_BLP, times_BK, time_index_BL, batch, null_BN):
        return 0 * noised_BLP + self.value[...]


def config_of(times) -> Config:
    diffusion = DiffusionConfig(size_shift=False, times=times)
    return dataclasses.replace(CONFIG, data=DataConfig(row_tokens=64, row_examples=6, row_text=16), diffusion=diffusion)


def request(seed: int, **values) -> Request:
    return Request(np.ones((2, TEXT_WIDTH), np.float32), 5, 8, 8, 6.0, seed, **values)


def estimates(own: float, times, partner: float, **settings) -> list[list[int]]:
    """Pixels of the clean estimates of two videos in one row at each evaluation; the second starts at half the time."""
    graph, params = nnx.split(Constant(own))
    other = nnx.split(Constant(partner))[1]
    generator = Generator(graph, params, config_of(times), one_device(), PATCH, 3, partner=other)
    edited = np.zeros((5, 8, 8, 3), np.uint8)
    seen: list[list[int]] = [[], []]

    def look(done, videos):
        for i, video in videos.items():
            seen[i].append(int(video.mean()))
            assert video.std() == 0

    last = generator.generate(
        [request(1), request(2, edited_TYXC=edited, strength=0.5)], steps=4, preview=look, **settings
    )
    assert [int(video.mean()) for video in last] == [PIXEL[LOW]] * 2
    return seen


@pytest.mark.parametrize("own", ["high", "low"])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_every_patch_takes_the_network_of_its_time(own, guidance):
    arguments = (HIGH, (0.5, 1.0), LOW) if own == "high" else (LOW, (0.0, 0.5), HIGH)
    first, second = estimates(*arguments, guidance=guidance)
    high, low = PIXEL[HIGH], PIXEL[LOW]
    assert first == [high, high, high, low]  # times 1, 0.75, 0.5, 0.25
    assert second == [high, low, low, low]  # times 0.5, 0.375, 0.25, 0.125


def test_only_networks_that_are_needed_are_asked():
    experts = Experts("high", "low", 0.9)
    assert experts.needed(np.array([0, 1.0, 0.9])) == ("high",)
    assert experts.needed(np.array([0.89, 0])) == ("low",)
    assert experts.needed(np.array([0.89, 0.95])) == ("high", "low")
    assert experts.needed(np.zeros(3)) == ("high",)
    assert Experts("all").needed(np.array([0.1])) == ("all",)


def test_ranges_must_add_up_to_all_times():
    assert share_times((0.9, 1.0), (0.0, 0.9)) and share_times((0.0, 0.875), (0.875, 1.0))
    for own, other in (((0.9, 1.0), (0.9, 1.0)), ((0.0, 0.9), (0.875, 1.0)), ((0.0, 1.0), (0.0, 0.9))):
        assert not share_times(own, other)
