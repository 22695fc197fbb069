"""Generation: against a flow whose solution is known, and what a video may depend on."""

import contextlib
import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import pytest
from flax import nnx
from small_model import CONFIG, PATCH, SHAPE, TEXT_WIDTH, one_device, shard_like, stirred

from vdit.config import Config, DataConfig, MeshConfig
from vdit.diffusion import flow, randomness
from vdit.errors import UserError
from vdit.generation import Generator, Request, request_seed
from vdit.generation import generator as module
from vdit.generation.request import patch_request
from vdit.generation.rows.schedule import schedule_rows
from vdit.parallel.mesh import make_mesh, use_mesh
from vdit.parallel.rowwise import take
from vdit.patches import REFERENCE_RATE, Grid, unpatchify

DATA = DataConfig(row_tokens=64, row_examples=6, row_text=16)
REAL = dataclasses.replace(CONFIG, data=DATA)


def request(seed: int, frames: int, height: int, width: int, words: int = 2, given: int = 0, **values) -> Request:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(words, TEXT_WIDTH)).astype(np.float32)
    frames_given = rng.integers(0, 256, (given, height, width, 3), np.uint8) if given else None
    return Request(text, frames, height, width, 6.0, seed, frames_given, **values)


class NormalData(nnx.Module):
    """The best clean prediction for data whose elements are N(mean, std^2); without its caption the mean is 0.

    Its input is scaled by `flow.scaled_input` with `input_std`.
    """

    def __init__(self, mean: float, std: float, input_std: float = 0.0):
        self.mean, self.std, self.input_std = nnx.Param(jax.numpy.float32(mean)), std, input_std

    def __call__(self, noised_BLP, times_BK, time_index_BL, batch, null_BN):
        t = take(times_BK[..., None], time_index_BL)
        noised_BLP = noised_BLP / flow.scaled_input(jax.numpy.ones_like(t), t, self.input_std)
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
        graph, params = nnx.split(NormalData(self.MEAN, self.STD, config.diffusion.input_std))
        generator = Generator(graph, params, config, one_device(), PATCH, 3)
        return generator.generate([request(7, 5, 8, 12), request(2**40 + 3, 9, 4, 8)], **arguments)

    def expected(self, mean: float, offset: float = 0.0) -> list[np.ndarray]:
        grids = {7: Grid(3, 2, 3), 2**40 + 3: Grid(5, 1, 2)}
        return [mean + offset + self.STD * noise_of(seed, grid) for seed, grid in grids.items()]

    def error(self, videos: list[np.ndarray], expected: list[np.ndarray]) -> float:
        """Mean difference, in units of the pixel scale [-1, 1]."""
        pairs = zip(videos, expected, strict=True)
        return max(np.abs(v / 127.5 - 1 - np.clip(e, -1, 1))[1:].mean() for v, e in pairs)  # 0 is a mean of copies

    @pytest.mark.parametrize(
        ("sampler", "steps", "tolerance"),
        [("heun", 48, 0.01), ("euler", 200, 0.012), ("dpm++", 60, 0.01), ("unipc", 40, 0.01)],
    )
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

    def test_a_scaled_input_changes_nothing_but_the_input(self):
        config = dataclasses.replace(REAL, diffusion=dataclasses.replace(REAL.diffusion, input_std=0.4))
        videos = self.generate(config, steps=48, sampler="heun")
        assert self.error(videos, self.expected(self.MEAN)) < 0.01

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


RNG = np.random.default_rng(5)
SPECIAL = [
    request(11, 5, 8, 8, negative_ME=RNG.normal(size=(5, TEXT_WIDTH)).astype(np.float32)),
    request(12, 5, 4, 8, words=4, negative_ME=RNG.normal(size=(1, TEXT_WIDTH)).astype(np.float32)),
    request(13, 5, 4, 8, references=(RNG.integers(0, 256, (4, 8, 3), np.uint8),) * 2),
    request(14, 5, 4, 4, edited_TYXC=RNG.integers(0, 256, (5, 4, 4, 3), np.uint8), strength=0.6),
    request(15, 7, 4, 4, stagger=0.4),
]
"""Requests that take more than a caption and patches, or are denoised in another way."""


def masked(seed: int, mask_TYX: np.ndarray, **values) -> Request:
    """A request of the mask's size with random pixels given by it."""
    video = np.random.default_rng(seed).integers(0, 256, (*mask_TYX.shape, 3), np.uint8)
    return dataclasses.replace(request(seed, *mask_TYX.shape, **values), given_TYXC=video, mask_TYX=mask_TYX)


def assert_close(a: np.ndarray, b: np.ndarray) -> None:
    """Equal but for the last bit before rounding."""
    difference = np.abs(a.astype(int) - b.astype(int))
    assert difference.max() <= 1
    assert difference.mean() < 0.01


def test_a_video_does_not_depend_on_what_it_is_packed_with(generator):
    everything = MIXED + SPECIAL
    settings = {"steps": 3, "guidance": 1.5, "guidance_rescale": 0.5, "sampler": "dpm++"}
    together = generator.generate(everything, **settings)
    backwards = generator.generate(everything[::-1], **settings)[::-1]
    for wanted, video, other in zip(everything, together, backwards, strict=True):
        (alone,) = generator.generate([wanted], **settings)
        assert alone.shape == (wanted.frames, wanted.height, wanted.width, 3)
        assert alone.dtype == np.uint8
        assert_close(alone, video)
        assert_close(alone, other)


@pytest.mark.parametrize("sizes", [(2, 2, 1, 2), (2, 1, 2, 2)], ids=["rows and heads", "tokens too"])
def test_many_devices_give_the_same_videos(generator, sizes, monkeypatch):
    mesh = make_mesh(MeshConfig(*sizes))
    with use_mesh(mesh):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
    sharded = Generator(stirred(CONFIG)[0], params, REAL, mesh, PATCH, 3)
    everything, settings = MIXED * 2 + SPECIAL, {"steps": 2, "guidance": 1.5, "guidance_rescale": 0.5}
    plans = []
    monkeypatch.setattr(module, "schedule_rows", lambda *a: plans.append(schedule_rows(*a)) or plans[-1])
    found = sharded.generate(everything, **settings)
    assert any(any(schedule.first_B) for schedule in plans[0]), "no row goes on where another one was"
    for a, b in zip(found, generator.generate(everything, **settings), strict=True):
        assert_close(a, b)


def test_devices_may_have_no_row(generator):
    mesh = make_mesh(MeshConfig(4, 1, 1, 2))
    with use_mesh(mesh):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
    (found,) = Generator(stirred(CONFIG)[0], params, REAL, mesh, PATCH, 3).generate(MIXED[:1], steps=2)
    (expected,) = generator.generate(MIXED[:1], steps=2)
    assert_close(found, expected)


def test_one_of_several_processes_is_refused(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(UserError, match="one process, and this is one of 2"):
        Generator(*stirred(CONFIG), REAL, one_device(), PATCH, 3)


def test_given_frames_come_back_and_are_seen(generator):
    wanted = MIXED[3]
    seen = []
    (video,) = generator.generate([wanted], steps=3, sampler="heun", preview=lambda _, videos: seen.append(videos[0]))
    for estimate in (video, *seen):
        np.testing.assert_array_equal(estimate[:5], wanted.given_TYXC)
    assert len(seen) == 5 and (seen[0][5:] != seen[2][5:]).any()
    (other,) = generator.generate([dataclasses.replace(wanted, given_TYXC=255 - wanted.given_TYXC)], steps=3)
    (free,) = generator.generate([dataclasses.replace(wanted, given_TYXC=None)], steps=3)
    assert np.abs(video[5:].astype(int) - other[5:]).mean() > 1
    assert np.abs(video[5:].astype(int) - free[5:]).mean() > 1


def patterns() -> dict[str, np.ndarray]:
    """Masks of 7 frames of 8x8 pixels: any pattern can be given."""
    masks = {
        name: np.zeros((7, 8, 8), bool) for name in ("last frame", "ends", "middle", "outside a box", "a few pixels")
    }
    masks["last frame"][-2:] = True
    masks["ends"][:3] = masks["ends"][-2:] = True
    masks["middle"][3:5] = True
    masks["outside a box"][:] = True
    masks["outside a box"][:, 2:7, 5:8] = False
    masks["a few pixels"][2, 1:3, 5] = True
    return masks


@pytest.mark.parametrize("name", patterns())
def test_any_pixels_can_be_given_and_come_back_exactly(generator, name):
    mask = patterns()[name]
    wanted = masked(3, mask)
    (video,) = generator.generate([wanted], steps=2)
    np.testing.assert_array_equal(video[mask], wanted.given_TYXC[mask])
    assert (video[~mask] != wanted.given_TYXC[~mask]).mean() > 0.9
    changed = np.where(mask[..., None], 255 - wanted.given_TYXC, wanted.given_TYXC)
    (other,) = generator.generate([dataclasses.replace(wanted, given_TYXC=changed)], steps=2)
    seen = patch_request(wanted, PATCH, 3).given_L.any()
    assert (np.abs(video[~mask].astype(int) - other[~mask]).mean() > 0.5) == seen == (name != "a few pixels")
    hidden = np.where(mask[..., None], wanted.given_TYXC, 255 - wanted.given_TYXC)
    (same,) = generator.generate([dataclasses.replace(wanted, given_TYXC=hidden)], steps=2)
    np.testing.assert_array_equal(same, video)  # what is not given is not looked at


def test_a_mask_and_leading_frames_are_the_same_question(generator):
    wanted = MIXED[3]
    mask = np.zeros((9, 8, 4), bool)
    mask[:5] = True
    whole = np.concatenate([wanted.given_TYXC, np.zeros((4, 8, 4, 3), np.uint8)])
    both = [wanted, dataclasses.replace(wanted, given_TYXC=whole, mask_TYX=mask)]
    np.testing.assert_array_equal(*generator.generate(both, steps=2))


def test_references_are_seen_and_not_returned(generator):
    wanted = SPECIAL[2]
    (video,) = generator.generate([wanted], steps=2)
    assert video.shape == (5, 4, 8, 3)
    for references in ((), wanted.references[:1], (255 - wanted.references[0],) * 2):
        (other,) = generator.generate([dataclasses.replace(wanted, references=references)], steps=2)
        assert np.abs(video.astype(int) - other).mean() > 0.5
    example = patch_request(wanted, PATCH, 3).example
    times = np.unique(example.positions_L3[:, 0])
    assert len(times) == 3 + 2
    assert np.diff(times)[2:].min() > 2 * REFERENCE_RATE - 1e-3, "references stand outside the clip"


def test_negative_captions_steer_away_and_only_with_guidance(generator):
    wanted = SPECIAL[0]
    without = dataclasses.replace(wanted, negative_ME=None)
    same = dataclasses.replace(wanted, negative_ME=wanted.text_ME)
    assert_close(*generator.generate([wanted, without], steps=2))
    steered, plain, cancelled, unguided = (
        generator.generate([r], steps=2, guidance=g)[0]
        for r, g in ((wanted, 3.0), (without, 3.0), (same, 3.0), (without, 1.0))
    )
    assert np.abs(steered.astype(int) - plain).mean() > 0.5
    assert_close(cancelled, unguided)  # away from the caption itself is nowhere


def test_guidance_outside_its_interval_is_none(generator):
    wanted = [MIXED[0], MIXED[4]]
    plain = generator.generate(wanted, steps=3)
    for interval in ((0.0, 1e-3), (0.999999, 1.0)):
        found = generator.generate(wanted, steps=3, guidance=4.0, guidance_interval=interval)
        for a, b in zip(found, plain, strict=True):
            assert (np.abs(a.astype(int) - b).max() <= 1) == (interval[0] == 0)


def test_rescaling_takes_spread_back(generator):
    def spread(**settings) -> float:
        return float(np.std(generator.generate(MIXED[:1], steps=1, **settings)[0].astype(float)))

    plain, guided = spread(), spread(guidance=8.0)
    rescaled = spread(guidance=8.0, guidance_rescale=1.0)
    assert guided > plain
    assert abs(rescaled - plain) < 0.2 * (guided - plain)


def test_an_edit_keeps_more_with_less_strength(generator):
    wanted = SPECIAL[3]

    def change(strength: float) -> float:
        (video,) = generator.generate([dataclasses.replace(wanted, strength=strength)], steps=4)
        return np.abs(video.astype(int) - wanted.edited_TYXC).mean()

    changes = [change(strength) for strength in (0.01, 0.3, 1.0)]
    assert changes[0] < 0.5 * min(changes[1:])
    (free,) = generator.generate([dataclasses.replace(wanted, edited_TYXC=None)], steps=4)
    (whole,) = generator.generate([dataclasses.replace(wanted, strength=1.0)], steps=4)
    assert_close(free, whole)


def test_staggered_groups_are_the_solution_too():
    """Between elements that do not see each other, when a group is denoised makes no difference."""
    graph, params = nnx.split(NormalData(0.2, 0.3))
    plain = Generator(graph, params, REAL, one_device(), PATCH, 3)
    pair = [request(7, 7, 4, 8), request(7, 7, 4, 8, stagger=0.25)]
    for sampler, evaluations in (("heun", 15), ("unipc", 8)):
        seen: list[np.ndarray] = []
        look = lambda _, videos, seen=seen: seen.append(videos[1])  # noqa: E731
        a, b = plain.generate(pair, steps=8, sampler=sampler, preview=look)
        assert_close(a, b)
        assert len(seen) == evaluations + round(0.75 * evaluations)
        assert (np.abs(seen[-3].astype(int) - b).reshape(7, -1).mean(1)[[0, 2]] == 0).all(), "the first groups are done"


def test_seed_caption_and_guidance_matter(generator):
    wanted = MIXED[0]
    (video,) = generator.generate([wanted], steps=3)
    np.testing.assert_array_equal(generator.generate([wanted], steps=3)[0], video)
    for change in ({"seed": 2}, {"seed": 1 + 2**32}, {"text_ME": wanted.text_ME + 1}):
        (other,) = generator.generate([dataclasses.replace(wanted, **change)], steps=3)
        assert np.abs(other.astype(int) - video).mean() > 0.5, change
    (guided,) = generator.generate([wanted], steps=3, guidance=4.0)
    assert np.abs(guided.astype(int) - video).mean() > 0.5


@contextlib.contextmanager
def compilations() -> Iterator[list[str]]:
    """What JAX compiles meanwhile."""
    seen: list[str] = []

    def listen(event: str, seconds: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_new_size_length_mode_sampler_or_number_of_steps_compiles_nothing():
    config = dataclasses.replace(REAL, diffusion=dataclasses.replace(REAL.diffusion, least_time=0.0625))
    graph, params = nnx.split(NormalData(0.0, 1.0))
    fresh = Generator(graph, params, config, one_device(), PATCH, 3)
    with compilations() as first:
        fresh.generate(MIXED[:1], steps=2)
        fresh.generate(MIXED[:1], steps=2, guidance=2.0)
        fresh.generate(MIXED[:1], steps=2, guidance=2.0, guidance_rescale=0.5)
    assert first
    with compilations() as more:
        for wanted in (MIXED[1:3], MIXED, MIXED * 3):
            fresh.generate(wanted, steps=2)
        reference = np.zeros((8, 4, 3), np.uint8)
        fresh.generate([request(8, 11, 4, 8, references=(reference,)), request(9, 3, 16, 8, stagger=0.5)], steps=2)
        fresh.generate([request(10, 5, 4, 20, negative_ME=np.ones((7, TEXT_WIDTH), np.float32))], steps=2, guidance=3.0)
        fresh.generate(MIXED, steps=4, guidance=1.5, sampler="unipc", schedule="cosine", guidance_interval=(0.1, 0.9))
        fresh.generate(MIXED[:2], steps=3, guidance=1.5, guidance_rescale=0.7)
        again = Generator(graph, params, dataclasses.replace(config, seed=5), one_device(), PATCH, 3)
        again.generate(MIXED[:1], steps=5, guidance=1.0)
    assert not more


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
        (masked(1, np.ones((5, 8, 8), bool)), "all patches of the video are given, nothing is left to generate"),
        (
            dataclasses.replace(masked(1, np.zeros((5, 8, 8), bool)), height=4),
            "what is given has shape (5, 8, 8, 3), the video (5, 4, 8, 3); make them the same size and length",
        ),
        (
            dataclasses.replace(masked(1, np.zeros((5, 8, 8), bool)), mask_TYX=np.zeros((5, 8, 4), bool)),
            "its mask has shape (5, 8, 4), the video (5, 8, 8); make",
        ),
        (request(1, 5, 8, 8, edited_TYXC=np.zeros((3, 8, 8, 3), np.uint8)), "the clip that is edited has shape (3, 8,"),
        (request(1, 5, 8, 8, strength=0.0), "--strength=0 is not in (0, 1]"),
        (request(1, 5, 8, 8, references=(np.zeros((8, 9, 3), np.uint8),)), "a reference image of 9x8: width=9 is not"),
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
    assert len(patch_request(large, PATCH, 3).given_L) > SHAPE.tokens
    alone = generator.generate([small], steps=2)[0]
    beside, whole = generator.generate([small, large], steps=2)
    assert whole.shape == (9, 16, 16, 3)
    np.testing.assert_allclose(beside.astype(int), alone.astype(int), atol=1)
    assert generator.generate([request(1, 5, 4, 4, words=17)], steps=1)[0].shape == (5, 4, 4, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": "ddim"}, "--sampler=ddim is not one of euler, heun, dpm++, unipc"),
        ({"schedule": "even"}, "--schedule=even is not one of linear, cosine, linear_quadratic"),
        ({"steps": 0}, "--steps=0 must be at least 1"),
        ({"guidance_interval": (0.5, 0.2)}, "--guidance_interval=0.5,0.2 is not two times 0 <= low < high <= 1"),
        ({"guidance_rescale": 2.0}, "--guidance_rescale=2 is not from 0 to 1"),
    ],
)
def test_settings_out_of_range(generator, settings, message):
    with pytest.raises(UserError) as raised:
        generator.generate(MIXED[:1], **settings)
    assert str(raised.value) == message


def test_request_seeds_differ_by_seed_and_text():
    seeds = {request_seed(seed, text) for seed in (0, 1, 2**31) for text in ("", "a", "b")}
    assert len(seeds) == 9
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert request_seed(3, "a ball") == request_seed(3, "a ball")
