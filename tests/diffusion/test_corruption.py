"""What the network is asked: noise and times that depend on nothing but (seed, step, id, token); given patches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_model import CLIP_MEANS, CONFIG, PATCH, SHAPE, clip, clips, one_device, pack

from vdit.batch import PackedBatch, RowShape
from vdit.config import DiffusionConfig, Modes
from vdit.diffusion import conditioning, corruption
from vdit.diffusion.conditioning import MODES
from vdit.parallel.mesh import to_global, use_mesh

CLIPS = clips()
SEGMENTS = pack([CLIPS], SHAPE).segments_BL
FIELDS = ("noised_BLP", "target_BLP", "time_BL", "loss_mask_BL")


@functools.cache
def _compiled(config: DiffusionConfig):
    def inputs(batch, seed, step):
        return corruption.corrupt_batch(batch, jax.random.fold_in(jax.random.key(seed), step), config)

    return jax.jit(inputs)


def ask(batch: PackedBatch, seed: int = 0, step: int = 0, config: DiffusionConfig = CONFIG.diffusion):
    with use_mesh(one_device()):
        inputs = _compiled(config)(to_global(batch, one_device()), seed, step)
    return jax.tree.map(np.asarray, inputs)


def by_example(batch: PackedBatch, inputs) -> dict[int, dict[str, np.ndarray]]:
    """The inputs of each example's patches, and whether its caption is dropped."""
    out = {}
    for b, n in zip(*np.nonzero(batch.grid_BN3.prod(-1)), strict=True):
        mine = batch.is_patch_BL[b] & (batch.segments_BL[b] == n + 1)
        high, low = batch.ids_BN2[b, n]
        about = {name: getattr(inputs, name)[b, mine] for name in FIELDS}
        out[int(high) << 32 | int(low)] = {**about, "null": inputs.null_BN[b, n]}
    return out


def assert_same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for identity, about in a.items():
        for name, value in about.items():
            # Programs of other shapes may round the last bit otherwise.
            np.testing.assert_allclose(value, b[identity][name], rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize(
    ("rows", "shape"),
    [([CLIPS[::-1]], SHAPE), ([CLIPS[2:], CLIPS[:2]], SHAPE), ([CLIPS], RowShape(75, 11, 13))],
    ids=["order", "rows", "row size"],
)
def test_randomness_does_not_depend_on_packing(rows, shape):
    expected = pack([CLIPS])
    found = pack(rows, shape)
    assert_same(by_example(found, ask(found)), by_example(expected, ask(expected)))


@pytest.mark.parametrize("change", [{"seed": 1}, {"step": 1}], ids=["seed", "step"])
def test_randomness_depends_on_seed_and_step(change):
    batch = pack([CLIPS])
    a, b = by_example(batch, ask(batch)), by_example(batch, ask(batch, **change))
    for identity in a:
        assert not np.isclose(a[identity]["target_BLP"], b[identity]["target_BLP"]).any()
    assert any(a[i]["time_BL"].max() != b[i]["time_BL"].max() for i in a)
    assert_same(b, by_example(batch, ask(batch, **change)))


@pytest.mark.parametrize("other", [CLIPS[0].id + 1, CLIPS[0].id + 2**32], ids=["low half", "high half"])
def test_randomness_depends_on_both_halves_of_the_id(other):
    batch = pack([[CLIPS[0], dataclasses.replace(CLIPS[0], id=other)]])
    (a, b) = by_example(batch, ask(batch)).values()
    assert not np.isclose(a["target_BLP"], b["target_BLP"]).any()


def test_noise_is_standard_normal_and_independent_between_tokens():
    big = [clip(n, 9, 24, 24, 0) for n in (1, 2)]
    batch = pack([[c] for c in big], RowShape(180, 1, 1))
    inputs = ask(batch)
    noise = inputs.target_BLP + corruption.to_model_scale(jnp.asarray(batch.patches_BLP))
    assert abs(noise.mean()) < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)
    assert np.abs(noise).max() > 3.5
    rows = noise.reshape(-1, noise.shape[-1])
    correlation = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(correlation).max() < 0.6  # 96 elements: standard error 0.1


def test_noised_patches_follow_the_path():
    batch = pack([CLIPS])
    inputs = ask(batch)
    clean = np.asarray(corruption.to_model_scale(jnp.asarray(batch.patches_BLP)))
    time = inputs.time_BL[..., None]
    np.testing.assert_allclose(inputs.noised_BLP, clean + time * inputs.target_BLP, atol=1e-5)


def check_mode(mode: str, example, given: np.ndarray) -> None:
    """Whether a given-mask_TYX is one of its mode."""
    groups = example.grid.t
    whole = given.reshape(groups, -1)
    if mode == "box":
        assert all((group == whole[0]).all() for group in whole), "the box is the same in every group"
        rows, columns = np.nonzero(~given[0])
        assert not given[0, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].any(), "it has no holes"
        return
    assert (whole.all(1) | ~whole.any(1)).all(), "what is given is whole groups"
    given_T = whole.all(1)
    head, tail = int(np.argmin(given_T)), int(np.argmin(given_T[::-1]))
    assert given_T.sum() == head + tail
    allowed = {
        "text": ({0}, {0}),
        "first_frame": ({min(1, groups - 1)}, {0}),
        "two_groups": ({min(2, groups - 1)}, {0}),
        "head": (set(range(1, groups)) or {0}, {0}),
        "tail": ({0}, set(range(1, groups)) or {0}),
        "last_frame": ({0}, {min(1, groups - 1)}),
        "first_last": ({min(1, groups - 1)}, {min(1, max(groups - 2, 0))}),
        "connect": (set(range(1, groups - 1)) or {0}, set(range(1, groups - 1)) or {int(groups == 2)}),
        "reference": ({0}, {min(1, groups - 1)}),
    }[mode]
    assert head in allowed[0] and tail in allowed[1], (mode, groups, head, tail)


@pytest.mark.parametrize("mode", MODES)
def test_given_patches_are_clean_at_time_0_without_loss(mode):
    config = dataclasses.replace(CONFIG.diffusion, modes=Modes(**{mode: 1.0}))
    batch = pack([CLIPS])
    for step in range(3):
        inputs = by_example(batch, ask(batch, config=config, step=step))
        for example in CLIPS:
            about = inputs[example.id]
            given = about["loss_mask_BL"] == 0
            check_mode(mode, example, given.reshape(example.grid))
            clean = np.asarray(corruption.to_model_scale(jnp.asarray(example.patches_LP)))
            np.testing.assert_allclose(about["noised_BLP"][given], clean[given], atol=2e-7)
            np.testing.assert_array_equal(about["time_BL"][given], 0)
            assert len(set(about["time_BL"][~given])) == 1
            assert 0 < about["time_BL"][~given][0] < 1
            assert not given.all(), "something is left to generate"


def test_references_stand_outside_their_clips():
    config = dataclasses.replace(CONFIG.diffusion, modes=Modes(reference=1.0))
    batch = pack([CLIPS])
    inputs = ask(batch, config=config)
    moved = inputs.positions_BL3 - batch.positions_BL3
    given = batch.is_patch_BL & (inputs.loss_mask_BL == 0)
    np.testing.assert_allclose(moved[..., 0], np.where(given, conditioning.REFERENCE_GAP, 0), rtol=1e-6)
    assert not moved[..., 1:].any()
    assert given.any()
    other = ask(batch, config=dataclasses.replace(config, modes=Modes(last_frame=1.0)))
    np.testing.assert_array_equal(other.positions_BL3, batch.positions_BL3)


def test_diffusion_forcing_gives_every_group_a_time_of_its_own():
    config = dataclasses.replace(CONFIG.diffusion, forcing=1.0, modes=Modes(first_frame=1.0))
    batch = pack([CLIPS])
    inputs = ask(batch, config=config)
    expected = pack([CLIPS[2:], CLIPS[:2]])
    assert_same(by_example(batch, inputs), by_example(expected, ask(expected, config=config)))
    np.testing.assert_array_equal(np.take_along_axis(inputs.times_BK, inputs.time_index_BL, 1), inputs.time_BL)
    distinct = set()
    for example in CLIPS:
        times_TX = by_example(batch, inputs)[example.id]["time_BL"].reshape(example.grid.t, -1)
        assert (times_TX == times_TX[:, :1]).all()
        if example.grid.t > 1:
            assert (times_TX[0] == 0).all()
            distinct |= set(times_TX[1:, 0].tolist())
    assert len(distinct) > 5


def test_forced_times_have_the_distribution_of_the_config():
    config = DiffusionConfig(logit_mean=0.4, logit_std=0.7, size_shift=False, modes=Modes(text=1.0), forcing=0.5)
    tiny = [clip(n, 5, 4, 4, 0) for n in range(300)]
    batch = pack([tiny], RowShape(900, 300, 1))
    times = ask(batch, config=config).time_BL[0].reshape(300, 3)
    forced = times[(times != times[:, :1]).any(1)]
    assert len(forced) / 300 == pytest.approx(0.5, abs=0.1)
    logits = np.log(forced / (1 - forced))
    assert logits.mean() == pytest.approx(0.4, abs=0.1)
    assert logits.std() == pytest.approx(0.7, abs=0.07)
    assert np.abs(np.corrcoef(logits.T) - np.eye(3)).max() < 0.3


def test_captions_and_padding_carry_no_loss_and_time_0():
    batch = pack([CLIPS], count=2)
    inputs = ask(batch)
    assert not inputs.loss_mask_BL[~batch.is_patch_BL].any()
    assert not inputs.time_BL[~batch.is_patch_BL].any()
    assert np.isfinite(inputs.noised_BLP).all()


def test_time_index_names_the_time():
    inputs = ask(pack([CLIPS]))
    np.testing.assert_array_equal(np.take_along_axis(inputs.times_BK, inputs.time_index_BL, 1), inputs.time_BL)


def drawn(modes: Modes, grid: tuple[int, int, int], count: int = 1000) -> conditioning.Conditioning:
    uniform = jnp.linspace(0, 1, count, endpoint=False)
    draws = np.random.default_rng(0).random((count, conditioning.DRAWS), np.float32)
    mode = conditioning.draw_mode(uniform, modes)
    given = conditioning.draw_conditioning(mode, draws, jnp.broadcast_to(jnp.array(grid), (count, 3)))
    return conditioning.Conditioning(*map(np.asarray, given))


def test_shares_of_modes():
    found = drawn(Modes(text=0.5, first_frame=0.2, two_groups=0.3), (5, 2, 2))
    assert np.bincount(found.head).tolist() == [500, 200, 300]
    assert not found.tail.any() and not found.away.any()
    for groups_of_clip in (1, 2):
        found = drawn(Modes(text=0.5, first_frame=0.2, two_groups=0.3), (groups_of_clip, 2, 2))
        assert found.head.max() == groups_of_clip - 1
    found = drawn(Modes(text=0.25, tail=0.25, reference=0.5), (2, 2, 2))
    assert (found.tail.mean(), found.away.mean()) == (0.75, 0.5)


def test_numbers_and_boxes_are_drawn_evenly():
    head = drawn(Modes(head=1.0), (5, 2, 2), 4000).head
    np.testing.assert_allclose(np.bincount(head, minlength=5) / 4000, [0, 0.25, 0.25, 0.25, 0.25], atol=0.03)
    found = drawn(Modes(connect=1.0), (4, 2, 2))
    assert {(int(h), int(t)) for h, t in zip(found.head, found.tail, strict=True)} == {(1, 1), (1, 2), (2, 1)}
    found = drawn(Modes(box=1.0), (3, 4, 5), 4000)
    for low, high, size in ((found.top, found.bottom, 4), (found.left, found.right, 5)):
        assert low.min() == 0 and high.max() == size and (low < high).all()
        np.testing.assert_allclose(np.bincount(high - low, minlength=size + 1)[1:] / 4000, 1 / size, atol=0.03)


def test_given_groups_are_whole_and_never_all():
    draws = np.zeros(conditioning.DRAWS, np.float32)
    for groups in (1, 2, 3):
        for count, mode in enumerate(("text", "first_frame", "two_groups")):
            grid = np.array([groups, 2, 4])
            given = conditioning.draw_conditioning(jnp.int32(conditioning.MODES.index(mode)), draws, grid)
            mask = np.asarray(conditioning.given_patches(given, grid, np.arange(8 * groups))).reshape(groups, 2, 4)
            assert mask[: min(count, groups - 1)].all()
            assert not mask[min(count, groups - 1) :].any()


def test_times_have_the_distribution_of_the_config():
    config = DiffusionConfig(logit_mean=0.4, logit_std=0.7, size_shift=False, modes=Modes(text=1.0))
    tiny = [clip(n, 1, 4, 4, 0) for n in range(600)]
    batch = pack([tiny], RowShape(600, 600, 1))
    time = np.sort(ask(batch, config=config).times_BK[0, :600])
    logits = np.log(time / (1 - time))
    assert logits.mean() == pytest.approx(0.4, abs=0.1)
    assert logits.std() == pytest.approx(0.7, abs=0.07)


def test_captions_are_dropped_at_their_rate():
    tiny = [clip(n, 1, 4, 4, 0) for n in range(600)]
    dropped = ask(pack([tiny], RowShape(600, 600, 1))).null_BN
    assert dropped.mean() == pytest.approx(CONFIG.diffusion.caption_dropout, abs=0.06)


class TestScale:
    def test_pixels(self):
        pixels = np.array([[0, 255, 51]], np.uint8)
        np.testing.assert_allclose(corruption.to_model_scale(jnp.asarray(pixels)), [[-1, 1, -0.6]], atol=1e-6)

    @pytest.mark.parametrize("mean", [(), CLIP_MEANS], ids=["no mean", "mean"])
    def test_round_trip(self, mean):
        pixels = np.random.default_rng(0).integers(0, 256, (4, PATCH.size()), np.uint8)
        scaled = np.asarray(corruption.to_model_scale(jnp.asarray(pixels), mean))
        video = scaled.reshape(4, -1, 3)
        np.testing.assert_array_equal(corruption.to_pixels(video, mean).reshape(4, -1), pixels)

    def test_latents_keep_their_scale(self):
        latents = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float16)
        scaled = corruption.to_model_scale(jnp.asarray(latents))
        assert scaled.dtype == jnp.float32
        np.testing.assert_array_equal(scaled, latents.astype(np.float32))

    def test_each_channel_has_its_mean(self):
        pixels = np.tile(np.array([51, 102, 204], np.uint8), (2, PATCH.size() // 3))
        scaled = corruption.to_model_scale(jnp.asarray(pixels), (-0.6, -0.2, 0.6))
        np.testing.assert_allclose(scaled, 0, atol=1e-6)

    def test_the_mean_of_the_config_is_used(self):
        config = dataclasses.replace(CONFIG.diffusion, mean=(0.25,))
        batch = pack([CLIPS])
        shift = ask(batch, config=config).target_BLP - ask(batch).target_BLP
        np.testing.assert_allclose(shift, 0.25, atol=1e-5)


def test_where_patches_are_given_times_are_shifted_once_more():
    plain = dataclasses.replace(CONFIG.diffusion, modes=Modes(text=0.5, two_groups=0.5))
    shifted = dataclasses.replace(plain, given_shift=7.0)
    before, after = (ask(pack([CLIPS], SHAPE), config=config) for config in (plain, shifted))
    given = some = 0
    for b, n in zip(*np.nonzero(np.asarray(pack([CLIPS], SHAPE).grid_BN3).prod(-1)), strict=True):
        old, new = before.times_BK[b, n], after.times_BK[b, n]
        has_given = ((before.time_BL[b] == 0) & pack([CLIPS], SHAPE).is_patch_BL[b] & (SEGMENTS[b] == n + 1)).any()
        expected = 7 * old / (1 + 6 * old) if has_given else old
        assert new == pytest.approx(expected, abs=1e-5)
        given, some = given + has_given, some + 1
    assert 0 < given < some


@pytest.mark.parametrize("mode", ["text", "first_frame"])
def test_times_of_a_range_are_those_of_the_whole_that_fall_in_it(mode):
    """Two experts that share the times at 0.8 are trained on what one network for all times would be."""
    plain = DiffusionConfig(shift=3.0, given_shift=2.0, logit_mean=0.2)
    batch, boundary = pack([CLIPS]), 0.8

    @functools.partial(jax.jit, static_argnames="times")
    def times_at(batch, quantile, times):
        config = dataclasses.replace(plain, times=times)
        inputs = corruption.validation_inputs(batch, jax.random.key(0), quantile, jnp.int32(MODES.index(mode)), config)
        return inputs.times_BK[0, : len(CLIPS)]

    def at(quantiles, times):
        with use_mesh(one_device()):
            placed = to_global(batch, one_device())
            return np.array([times_at(placed, np.float32(q), times) for q in quantiles])

    quantiles, some = np.linspace(0.002, 0.998, 250), np.array([0.05, 0.3, 0.6, 0.95])
    whole_QN, low_QN, high_QN = at(quantiles, (0.0, 1.0)), at(some, (0.0, boundary)), at(some, (boundary, 1.0))
    for whole_Q, low_Q, high_Q in zip(whole_QN.T, low_QN.T, high_QN.T, strict=True):
        below = np.interp(boundary, whole_Q, quantiles)
        assert 0.05 < below < 0.95
        np.testing.assert_allclose(low_Q, np.interp(some * below, quantiles, whole_Q), atol=0.01)
        np.testing.assert_allclose(high_Q, np.interp(below + some * (1 - below), quantiles, whole_Q), atol=0.01)
