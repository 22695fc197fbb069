"""Generation: against a flow whose solution is known, and what a video may depend on."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx
from small_model import CONFIG, PATCH, SHAPE, TEXT_WIDTH, one_device, shard_like, stirred

from vdit.config import Config, DataConfig, MeshConfig, UserError
from vdit.diffusion import randomness
from vdit.generation import Generator, Request, request_seed
from vdit.parallel.mesh import make_mesh, use_mesh
from vdit.parallel.rowwise import take
from vdit.patches import Grid, unpatchify

DATA = DataConfig(row_tokens=64, row_examples=6, row_text=16)
REAL = dataclasses.replace(CONFIG, data=DATA)


def request(seed: int, frames: int, height: int, width: int, words: int = 2, given: int = 0, **values) -> Request:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(words, TEXT_WIDTH)).astype(np.float32)
    frames_given = rng.integers(0, 256, (given, height, width, 3), np.uint8) if given else None
    return Request(text, frames, height, width, 6.0, seed, frames_given, **values)


class NormalData(nnx.Module):
    """The best clean prediction for data whose elements are N(mean, std^2); without its caption the mean is 0."""

    def __init__(self, mean: float, std: float):
        self.mean, self.std = nnx.Param(jax.numpy.float32(mean)), std

    def __call__(self, noised_BLP, times_BK, time_index_BL, batch, null_BN):
        t = take(times_BK[..., None], time_index_BL)
        mean = jax.numpy.where(null_BN[0, 0], 0.0, self.mean[...])
        slope = (1 - t) * self.std**2 / ((1 - t) ** 2 * self.std**2 + t**2)
        return mean + slope * (noised_BLP - (1 - t) * mean)


def noise_of(seed: int, grid: Grid) -> np.ndarray:
    """The noise a request starts from, as a video."""
    with use_mesh(one_device()):
        ids = jax.numpy.array([[[seed >> 32, seed & 0xFFFFFFFF]]], jax.numpy.uint32)
        keys = randomness.example_keys(jax.random.key(0), ids)
        token = jax.numpy.arange(grid.tokens)[None]
        noise = randomness.token_noise(keys, jax.numpy.zeros_like(token), token, PATCH.size())
    return unpatchify(np.asarray(noise[0]), grid, PATCH)


class TestKnownFlow:
    MEAN, STD = 0.2, 0.3

    def generate(self, config: Config = REAL, **arguments) -> list[np.ndarray]:
        graph, params = nnx.split(NormalData(self.MEAN, self.STD))
        generator = Generator(graph, params, config, one_device(), PATCH, 3)
        return generator.generate([request(7, 5, 8, 12), request(2**40 + 3, 9, 4, 8)], **arguments)

    def expected(self, mean: float, offset: float = 0.0) -> list[np.ndarray]:
        grids = {7: Grid(3, 2, 3), 2**40 + 3: Grid(5, 1, 2)}
        return [mean + offset + self.STD * noise_of(seed, grid) for seed, grid in grids.items()]

    def error(self, videos: list[np.ndarray], expected: list[np.ndarray]) -> float:
        """Mean difference, in units of the pixel scale [-1, 1]."""
        pairs = zip(videos, expected, strict=True)
        return max(np.abs(v / 127.5 - 1 - np.clip(e, -1, 1))[1:].mean() for v, e in pairs)  # 0 is a mean of copies

    @pytest.mark.parametrize(("sampler", "steps", "tolerance"), [("heun", 48, 0.01), ("euler", 200, 0.012)])
    def test_videos_are_the_solution_of_the_flow(self, sampler, steps, tolerance):
        assert self.error(self.generate(steps=steps, sampler=sampler), self.expected(self.MEAN)) < tolerance

    def test_guidance_moves_the_mean(self):
        """Velocities are linear in the mean, so guidance by w is the flow of the mean w m."""
        videos = self.generate(steps=48, sampler="heun", guidance=1.75)
        assert self.error(videos, self.expected(1.75 * self.MEAN)) < 0.01

    def test_the_channels_mean_is_put_back(self):
        config = dataclasses.replace(REAL, diffusion=dataclasses.replace(REAL.diffusion, mean=(-0.25,)))
        videos = self.generate(config, steps=48, sampler="heun")
        assert self.error(videos, self.expected(self.MEAN, -0.25)) < 0.01

    def test_a_prediction_of_velocity_is_taken_as_one(self):
        config = dataclasses.replace(REAL, model=dataclasses.replace(REAL.model, prediction="v"))
        videos = self.generate(config, steps=8)
        assert self.error(videos, self.expected(self.MEAN)) > 0.1


@pytest.fixture(scope="module")
def generator() -> Generator:
    with use_mesh(one_device()):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
    return Generator(stirred(CONFIG)[0], params, REAL, one_device(), PATCH, 3)


MIXED = [
    request(1, 5, 8, 8),
    request(2, 1, 4, 12, words=0),
    request(3, 7, 4, 4, given=1),
    request(4, 9, 8, 4, words=3, given=5),
    request(5, 3, 12, 8),
    request(6, 5, 8, 8, given=3),
]


def assert_close(a: np.ndarray, b: np.ndarray) -> None:
    """Equal but for the last bit before rounding."""
    difference = np.abs(a.astype(int) - b.astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_a_video_does_not_depend_on_what_it_is_packed_with(generator):
    together = generator.generate(MIXED, steps=3, guidance=1.5)
    backwards = generator.generate(MIXED[::-1], steps=3, guidance=1.5)[::-1]
    for wanted, video, other in zip(MIXED, together, backwards, strict=True):
        (alone,) = generator.generate([wanted], steps=3, guidance=1.5)
        assert alone.shape == (wanted.frames, wanted.height, wanted.width, 3)
        assert alone.dtype == np.uint8
        assert_close(alone, video)
        assert_close(alone, other)


def test_many_devices_give_the_same_videos(generator):
    mesh = make_mesh(MeshConfig(replica=2, fsdp=2, tensor=2))
    with use_mesh(mesh):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
    sharded = Generator(stirred(CONFIG)[0], params, REAL, mesh, PATCH, 3)
    pairs = zip(sharded.generate(MIXED, steps=2), generator.generate(MIXED, steps=2), strict=True)
    for a, b in pairs:
        assert_close(a, b)


def test_given_frames_come_back_and_are_seen(generator, monkeypatch):
    finished = []
    finish = Generator._finish
    monkeypatch.setattr(
        Generator, "_finish", lambda self, patches, *rest: finished.append(patches) or finish(self, patches, *rest)
    )
    wanted = MIXED[3]
    (video,) = generator.generate([wanted], steps=3, sampler="heun")
    np.testing.assert_array_equal(video[:5], wanted.given_TYXC)
    patches = unpatchify(finished[0], Grid(5, 2, 1), PATCH)
    np.testing.assert_allclose(patches[:5], wanted.given_TYXC / 127.5 - 1, atol=1e-5)  # never noised
    (other,) = generator.generate([dataclasses.replace(wanted, given_TYXC=255 - wanted.given_TYXC)], steps=3)
    (free,) = generator.generate([dataclasses.replace(wanted, given_TYXC=None)], steps=3)
    assert np.abs(video[5:].astype(int) - other[5:]).mean() > 1
    assert np.abs(video[5:].astype(int) - free[5:]).mean() > 1


def test_seed_caption_and_guidance_matter(generator):
    wanted = MIXED[0]
    (video,) = generator.generate([wanted], steps=3)
    np.testing.assert_array_equal(generator.generate([wanted], steps=3)[0], video)
    for change in ({"seed": 2}, {"seed": 1 + 2**32}, {"text_ME": wanted.text_ME + 1}):
        (other,) = generator.generate([dataclasses.replace(wanted, **change)], steps=3)
        assert np.abs(other.astype(int) - video).mean() > 0.5, change
    (guided,) = generator.generate([wanted], steps=3, guidance=4.0)
    assert np.abs(guided.astype(int) - video).mean() > 0.5


def test_one_program_for_all_sizes():
    config = dataclasses.replace(REAL, diffusion=dataclasses.replace(REAL.diffusion, least_time=0.0625))
    graph, params = nnx.split(NormalData(0.0, 1.0))
    fresh = Generator(graph, params, config, one_device(), PATCH, 3)
    for wanted in (MIXED[:1], MIXED[1:3], MIXED, MIXED * 3):
        fresh.generate(wanted, steps=2)
    again = Generator(graph, params, dataclasses.replace(config, seed=5), one_device(), PATCH, 3)
    again.generate(MIXED[:1], steps=5, guidance=1.0)
    assert fresh._advance._cache_size() == 1
    assert fresh._start._cache_size() == 1


def test_progress_counts_all_steps():
    seen = []
    graph, params = nnx.split(NormalData(0.0, 1.0))
    generator = Generator(graph, params, REAL, one_device(), PATCH, 3)
    generator.generate(MIXED * 2, steps=3, progress=lambda done, total: seen.append((done, total)))
    assert len(seen) == seen[-1][0] == seen[-1][1] > 3
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (request(1, 5, 10, 8), "cannot generate 8x10, 5 frames: height=10 is not a positive multiple of the patch's 4"),
        (request(1, 6, 8, 8), "cannot generate 8x8, 6 frames: frames=6 is not 1 + k*2; cut the clip to 5"),
        (request(1, 0, 8, 8), "cannot generate 8x8, 0 frames: frames=0"),
        (request(1, 99, 4096, 4096), "a video of 4096x4096, 99 frames has 52,428,800 patches, over the 131,072"),
        (request(1, 5, 8, 8, given=2), "given frames of shape (2, 8, 8, 3) do not start a video of (5, 8, 8, 3)"),
        (request(1, 5, 8, 8, given=5), "given frames of shape (5, 8, 8, 3) do not start a video"),
        (
            dataclasses.replace(request(1, 5, 8, 8), given_TYXC=np.zeros((1, 8, 4, 3), np.uint8)),
            "given frames of shape (1, 8, 4, 3) do not start a video",
        ),
    ],
)
def test_what_cannot_be_generated_is_one_line(generator, wanted, message):
    with pytest.raises(UserError) as raised:
        generator.generate([MIXED[0], wanted], steps=1)
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_requests_larger_than_a_row_of_training_get_longer_rows(generator):
    """Whatever the length of the rows, a request's video is the same."""
    small, large = request(1, 5, 8, 8), request(2, 9, 16, 16)
    assert large.example(PATCH, 3).tokens > SHAPE.tokens
    alone = generator.generate([small], steps=2)[0]
    beside, whole = generator.generate([small, large], steps=2)
    assert whole.shape == (9, 16, 16, 3)
    np.testing.assert_allclose(beside.astype(int), alone.astype(int), atol=1)
    assert generator.generate([request(1, 5, 4, 4, words=17)], steps=1)[0].shape == (5, 4, 4, 3)


def test_unknown_sampler(generator):
    with pytest.raises(UserError, match="--sampler=ddim is not one of"):
        generator.generate(MIXED[:1], steps=1, sampler="ddim")


def test_request_seeds_differ_by_seed_and_text():
    seeds = {request_seed(seed, text) for seed in (0, 1, 2**31) for text in ("", "a", "b")}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert request_seed(3, "a ball") == request_seed(3, "a ball")
