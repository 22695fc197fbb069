"""Validation loss: the patch-weighted mean over examples, whatever the packing, the same every time."""

import dataclasses

import jax
import numpy as np
import pytest
from small_model import CONFIG, clip, clips, one_device, pack, shard_like, stirred

from vdit.config import DiffusionConfig, MeshConfig, Modes
from vdit.diffusion import conditioning
from vdit.diffusion.corruption import validation_inputs
from vdit.diffusion.loss import denoising_loss
from vdit.evaluation.validation import (
    MODES,
    NOISE_SEED,
    QUANTILES,
    ExampleLosses,
    make_evaluate,
    measured_modes,
    validate,
)
from vdit.parallel.mesh import make_mesh, to_global, use_mesh

CLIPS = clips() + clips(first=50)


def losses_of(batches, mesh=None, evaluate=None) -> ExampleLosses:
    mesh = mesh or one_device()
    with use_mesh(mesh):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
        return validate(evaluate or make_evaluate(stirred(CONFIG)[0], CONFIG), params, batches, mesh)


@pytest.fixture(scope="module")
def evaluate():
    return make_evaluate(stirred(CONFIG)[0], CONFIG)


@pytest.fixture(scope="module")
def losses(evaluate) -> ExampleLosses:
    return losses_of([pack([CLIPS[:5], CLIPS[5:]])], evaluate=evaluate)


def test_every_example_once_in_order(losses):
    np.testing.assert_array_equal(losses.grid_E3, [c.grid for c in CLIPS])
    for example, counts in zip(CLIPS, losses.count_EG, strict=True):
        frame = example.grid.y * example.grid.x
        expected = [example.grid.tokens - min(g, example.grid.t - 1) * frame for g in (0, 2)]
        assert counts.tolist() == expected


def test_the_loss_is_the_error_of_all_scored_patches(losses):
    """By brute force: for every time and mode the loss of the whole batch, as training computes it."""
    batch = pack([CLIPS[:5], CLIPS[5:]])
    graph, _ = stirred(CONFIG)

    def loss(params, batch, quantile, mode):
        inputs = validation_inputs(batch, jax.random.key(NOISE_SEED), quantile, mode, CONFIG.diffusion)
        error_BL, count = denoising_loss(graph, params, batch, inputs, CONFIG)
        return error_BL.sum() / count

    with use_mesh(one_device()):
        params, placed = shard_like(stirred(CONFIG)[1], CONFIG), to_global(batch, one_device())
        function = jax.jit(loss)
        table_GT = np.array(
            [[function(params, placed, t, g) for t in QUANTILES] for g in map(conditioning.MODES.index, MODES)]
        )
    summary = losses.summary()
    assert summary["loss"] == pytest.approx(table_GT.mean(), rel=1e-5)
    assert list(summary["by_time_quantile"].values()) == pytest.approx(table_GT.mean(0).tolist(), rel=1e-5)
    assert list(summary["by_mode"].values()) == pytest.approx(table_GT.mean(1).tolist(), rel=1e-5)
    assert list(summary["by_time_quantile"]) == ["0.1", "0.3", "0.5", "0.7", "0.9"]
    assert list(summary["by_mode"]) == ["text", "two_groups"]
    assert summary["examples"] == 10
    low, high = summary["loss_interval"]
    assert low < summary["loss"] < high


def test_it_is_the_same_every_time_and_for_every_packing(losses, evaluate):
    again = losses_of([pack([CLIPS[:5], CLIPS[5:]])], evaluate=evaluate)
    np.testing.assert_array_equal(again.error_EGT, losses.error_EGT)
    order = [7, 2, 9, 0, 4, 5, 1, 3, 8, 6]
    shuffled = [CLIPS[i] for i in order]
    batches = [pack([shuffled[:2], shuffled[2:5]]), pack([shuffled[5:6], shuffled[6:]]), pack([CLIPS[:1]], count=2)]
    found = losses_of(batches[:2], evaluate=evaluate)
    np.testing.assert_allclose(found.error_EGT, losses.error_EGT[order], rtol=2e-5)
    np.testing.assert_array_equal(found.count_EG, losses.count_EG[order])
    single = losses_of(batches[2:], evaluate=evaluate)
    np.testing.assert_allclose(single.error_EGT, losses.error_EGT[:1], rtol=2e-5)


def test_every_device_has_its_rows(losses):
    rows = [[CLIPS[i], CLIPS[i + 5]] for i in range(5)]
    found = losses_of([pack(rows, count=8)], make_mesh(MeshConfig(replica=4, fsdp=2)))
    order = [i for pair in zip(range(5), range(5, 10), strict=True) for i in pair]
    np.testing.assert_allclose(found.error_EGT, losses.error_EGT[order], rtol=2e-5)


def test_captions_are_never_dropped(losses):
    dropping = dataclasses.replace(CONFIG, diffusion=dataclasses.replace(CONFIG.diffusion, caption_dropout=1.0))
    evaluate = make_evaluate(stirred(CONFIG)[0], dropping)
    found = losses_of([pack([CLIPS[:5], CLIPS[5:]])], evaluate=evaluate)
    np.testing.assert_array_equal(found.error_EGT, losses.error_EGT)


class TestSummary:
    def losses(self) -> ExampleLosses:
        """Four clips of 1, 1, 3 and 3 groups, with 1, 4, 1 and 4 spatial patches."""
        grid_E3 = np.array([[1, 1, 1], [1, 2, 2], [3, 1, 1], [3, 2, 2]])
        count_EG = np.stack([grid_E3.prod(1), [1, 4, 1, 4]], 1)
        error_EGT = np.random.default_rng(0).uniform(size=(4, 2, 5))
        return ExampleLosses(MODES, error_EGT, count_EG, grid_E3)

    def by_hand(self, chosen: list[int]) -> float:
        """Mean of the errors of all scored patches of some clips, over times and modes."""
        losses = self.losses()
        total = sum(losses.count_EG[e, g] * losses.error_EGT[e, g].mean() for e in chosen for g in range(2))
        return total / losses.count_EG[chosen].sum()

    def test_buckets(self):
        summary = self.losses().summary()
        assert summary["by_groups"] == pytest.approx({"1-1": self.by_hand([0, 1]), "3-3": self.by_hand([2, 3])})
        assert summary["by_spatial_patches"] == pytest.approx(
            {"1-1": self.by_hand([0, 2]), "4-4": self.by_hand([1, 3])}
        )

    def test_one_size_is_one_bucket(self):
        losses = self.losses()
        same = dataclasses.replace(losses, grid_E3=np.full((4, 3), 2))
        assert same.summary()["by_groups"] == pytest.approx({"2-2": self.by_hand([0, 1, 2, 3])})

    def test_every_example_is_in_a_bucket(self):
        rng = np.random.default_rng(1)
        grid_E3 = rng.integers(1, 30, (57, 3))
        losses = ExampleLosses(MODES, rng.uniform(size=(57, 2, 5)), np.ones((57, 2), int), grid_E3)
        buckets = losses.summary()["by_groups"]
        edges = sorted(tuple(map(int, name.split("-"))) for name in buckets)
        assert len(edges) == 4
        assert edges[0][0] == grid_E3[:, 0].min()
        assert edges[-1][1] == grid_E3[:, 0].max()
        assert all(a[1] < b[0] for a, b in zip(edges, edges[1:], strict=False))


def test_an_image_has_a_loss_in_every_mode(evaluate):
    """Nothing of an image can be given, so all modes ask the same."""
    found = losses_of([pack([[clip(1, 1, 8, 8, 2)], [clip(2, 5, 8, 8, 2)]])], evaluate=evaluate)
    np.testing.assert_array_equal(found.error_EGT[0, 0], found.error_EGT[0, 1])
    assert not np.isclose(found.error_EGT[1, 0], found.error_EGT[1, 1]).any()


@pytest.mark.parametrize(
    ("modes", "measured"),
    [
        (DiffusionConfig().modes, ("text", "two_groups")),
        (Modes(two_groups=1.0), ("two_groups",)),
        (Modes(text=0.5, box=0.5), ("text",)),
        (Modes(first_frame=0.5, tail=0.5), ("first_frame", "tail")),
    ],
)
def test_what_is_measured_is_trained(modes, measured):
    assert measured_modes(modes) == measured


def test_the_loss_of_a_model_that_continues_clips_is_that_of_continued_clips(losses, evaluate):
    """Its text-to-video loss, of a way to prompt that it never saw, is no part of it."""
    batches = [pack([CLIPS[:5], CLIPS[5:]])]
    with use_mesh(one_device()):
        params = shard_like(stirred(CONFIG)[1], CONFIG)
        found = validate(evaluate, params, batches, one_device(), ("two_groups",))
    np.testing.assert_array_equal(found.error_EGT, losses.error_EGT[:, 1:])
    assert found.summary()["loss"] == pytest.approx(losses.summary()["by_mode"]["two_groups"], rel=1e-6)
    assert list(found.summary()["by_mode"]) == ["two_groups"]
