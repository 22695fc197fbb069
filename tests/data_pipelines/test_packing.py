import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.balance import imbalance, order_rows, row_costs
from data_pipelines.packing.best_fit import pack
from data_pipelines.packing.index import Index
from data_pipelines.packing.packing import Plan
from data_pipelines.packing.rows import EpochPlan
from vdit.batch import RowShape
from vdit.config import DataConfig
from vdit.errors import UserError
from vdit.patches import Patch

PATCH = Patch(4, 8, 8)


def make_index(count: int, rng: np.random.Generator, groups=(1, 8), sides=(3, 7), text=((9, 16),)) -> Index:
    return Index(
        id=rng.permutation(count).astype(np.uint64),
        frames=(1 + 4 * (rng.integers(*groups, count) - 1)).astype(np.int32),
        height=(8 * rng.integers(*sides, count)).astype(np.int32),
        width=(8 * rng.integers(*sides, count)).astype(np.int32),
        fps=np.full(count, 10, np.float32),
        text_tokens=np.stack([rng.integers(*span, count) for span in text], 1).astype(np.int32),
    )


def physics_index(count: int = 12_000) -> Index:
    return make_index(count, np.random.default_rng(0), groups=(3, 8))


def film_index() -> Index:
    rng = np.random.default_rng(1)
    index = make_index(114, rng, groups=(5, 40), sides=(5, 6), text=((15, 61),))
    return dataclasses.replace(index, width=np.full(114, 64, np.int32))


@st.composite
def plans(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kinds = draw(st.integers(0, 3))
    index = make_index(
        draw(st.integers(1, 120)), rng, groups=(1, 12), sides=(1, 6), text=((0, 30),) * kinds or ((0, 1),)
    )
    config = DataConfig(
        row_tokens=draw(st.integers(330, 1500)),
        row_examples=draw(st.integers(1, 20)),
        row_text=draw(st.integers(30, 200)),
        rows_per_step=draw(st.integers(1, 8)),
        max_frames=draw(st.integers(1, 44)),
        pack_window=draw(st.integers(1, 60)),
    )
    return index, config, draw(st.integers(-5, 2**70))


def everything(plan: EpochPlan) -> tuple:
    return tuple(getattr(plan, field.name).tolist() for field in dataclasses.fields(plan))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_example_once_an_epoch_and_no_row_over_its_limits(case):
    index, config, seed = case
    plan = Plan(index, config, PATCH, seed)
    for number in range(3):
        epoch = plan.epoch(number)
        assert sorted(epoch.examples) == list(range(len(index)))
        sizes, first = np.diff(epoch.offsets), epoch.offsets[:-1]
        text = index.text_tokens[epoch.examples, epoch.captions]
        assert sizes.min() >= 1 and sizes.max() <= config.row_examples
        assert np.add.reduceat(epoch.tokens, first).max() <= config.row_tokens
        assert np.add.reduceat(text, first).max() <= config.row_text
        window = dataclasses.replace(index, frames=epoch.frames[np.argsort(epoch.examples)])
        grid_tokens = window.grid_N3(PATCH).prod(1)[epoch.examples]
        assert (epoch.tokens == text + grid_tokens).all()
        whole = index.frames[epoch.examples]
        assert (epoch.frames == np.minimum(whole, PATCH.floor_frames(config.max_frames))).all()
        assert (epoch.starts >= 0).all() and (epoch.starts + epoch.frames <= whole).all()


@settings(max_examples=25, deadline=None)
@given(plans(), st.integers(0, 60))
def test_rows_are_a_function_of_the_row_number_alone(case, number):
    index, config, seed = case
    in_order, direct = Plan(index, config, PATCH, seed), Plan(index, config, PATCH, seed)
    stream = [in_order.row(r) for r in range(number + 1)]
    row = direct.row(number)
    assert all(np.array_equal(getattr(row, name), getattr(stream[number], name)) for name in vars(row))
    assert direct.locate(number) == in_order.locate(number)
    stage, epoch, k = direct.locate(number)
    assert stage == 0
    assert direct.first_row(epoch) + k == number
    assert sum(len(r) for r in stream[: direct.first_row(epoch)]) == epoch * len(index)


def test_epochs_and_seeds_differ_and_repeat():
    index, config = make_index(300, np.random.default_rng(0), text=((5, 10), (20, 30))), DataConfig(max_frames=9)
    plan, again, other = (Plan(index, config, PATCH, seed) for seed in (0, 0, 1))
    assert everything(plan.epoch(1)) == everything(again.epoch(1))
    assert everything(plan.epoch(0)) == everything(again.epoch(0))
    assert everything(plan.epoch(0)) != everything(plan.epoch(1))
    assert everything(plan.epoch(0)) != everything(other.epoch(0))
    assert everything(plan.once()) == everything(other.once())


def test_captions_are_drawn_evenly():
    index = make_index(4000, np.random.default_rng(0), groups=(6, 7), text=((1, 2), (2, 3), (3, 4)))
    config = DataConfig(captions=("c", "a"), max_frames=16)
    epoch = Plan(index, config, PATCH, 0, ("a", "b", "c")).epoch(0)
    assert np.bincount(epoch.captions).tolist() == pytest.approx([2000, 0, 2000], abs=200)
    assert set(epoch.frames) == {13}
    once = Plan(index, config, PATCH, 0, ("a", "b", "c")).once()
    assert set(once.captions) == {2} and set(once.starts) == {0}


def test_fill_of_both_sources_together():
    config = DataConfig(row_tokens=2048, max_frames=25)
    epochs = [Plan(physics_index(), config, PATCH, 0).epoch(0)]
    epochs.append(Plan(film_index(), dataclasses.replace(config, max_frames=17), PATCH, 0).epoch(0))
    tokens, rows = (sum(values) for values in zip(*((e.tokens.sum(), e.rows) for e in epochs), strict=True))
    assert tokens / (rows * 2048) >= 0.99
    assert all(e.rows <= 1 + -(-e.tokens.sum() // 2048) for e in epochs)


def test_windows_do_not_lose_their_tails():
    """With a window of 64 examples every window would waste part of a row, were it not carried on."""
    epoch = Plan(physics_index(2000), DataConfig(pack_window=64), PATCH, 0).epoch(0)
    assert epoch.rows <= 1 + -(-epoch.tokens.sum() // 2048)


def test_every_row_holds_the_mix_of_sizes():
    """Best-fit-decreasing alone would put the longest clips together in the first rows."""
    rng = np.random.default_rng(0)
    lengths = np.where(rng.random(8000) < 0.1, 300, rng.integers(20, 60, 8000))
    order, offsets = pack(lengths, np.zeros_like(lengths), RowShape(), 4096, rng)
    long = np.add.reduceat(lengths[order] == 300, offsets[:-1])
    assert long.max() <= 6 and lengths.sum() / (2048 * len(long)) > 0.995


def test_text_and_example_limits_end_a_row():
    lengths, text = np.full(50, 10), np.full(50, 4)
    for shape, held in ((RowShape(100, 3, 100), 3), (RowShape(100, 64, 9), 2), (RowShape(100, 64, 1000), 10)):
        _, offsets = pack(lengths, text, shape, 16, np.random.default_rng(0))
        assert np.diff(offsets).max() == held


@pytest.mark.parametrize(("rows_per_step", "devices"), [(256, 64), (64, 64), (8, 2), (2, 2)])
def test_devices_of_a_step_are_balanced(rows_per_step, devices):
    rng = np.random.default_rng(0)
    # Images and clips of one to eleven groups, as varied as a row of 16,384 slots allows.
    lengths = rng.integers(60, 1000, 30_000) * np.where(rng.random(30_000) < 0.5, 1, rng.integers(2, 12, 30_000))
    lengths = np.minimum(lengths, 16_384)
    order, offsets = pack(lengths, np.zeros_like(lengths), RowShape(16_384, 256, 4096), 4096, rng)
    costs = row_costs(lengths[order], offsets)
    shuffled = imbalance(rng.permutation(costs), rows_per_step, devices)
    phase = 3 % rows_per_step
    permutation = order_rows(costs, rows_per_step, phase, rng)
    assert sorted(permutation) == list(range(len(costs)))
    aligned = costs[permutation][-phase % rows_per_step :]
    balanced = imbalance(aligned, rows_per_step, devices)
    assert balanced < 1.05 and balanced - 1 < (shuffled - 1) / 4


def test_imbalance_of_known_loads():
    assert imbalance(np.array([3.0, 1, 2, 2]), 4, 2) == 1
    assert imbalance(np.array([3.0, 1, 2, 2]), 2, 2) == pytest.approx((3 + 2) / (2 + 2))
    assert row_costs(np.array([2, 4, 6]), np.array([0, 2, 3])).tolist() == pytest.approx([6 + 20 / 3072, 6 + 36 / 3072])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"row_tokens": 100},
            "25 frames of 40x40, 10 caption tokens.*185 slots.*data.row_tokens=100.*data.max_frames .now off",
        ),
        ({"row_text": 9}, "10 caption tokens.*data.row_text=9"),
        ({"captions": ("short", "poem")}, "data.captions='poem'.*short, long"),
        ({"rows_per_step": 0}, "data.rows_per_step=0"),
    ],
)
def test_what_cannot_be_packed_is_one_line(change, words):
    index = make_index(3, np.random.default_rng(0), groups=(7, 8), sides=(5, 6), text=((9, 10), (10, 11)))
    with pytest.raises(UserError, match=words) as error:
        Plan(index, DataConfig(**change), PATCH, 0, ("short", "long"))
    assert "\n" not in str(error.value)


def test_other_misfits():
    rng = np.random.default_rng(0)
    with pytest.raises(UserError, match="do not tile"):
        Plan(make_index(3, rng), DataConfig(), Patch(4, 16, 16), 0)
    with pytest.raises(UserError, match="no examples"):
        Plan(make_index(0, rng), DataConfig(), PATCH, 0)
    plan = Plan(make_index(5, rng), DataConfig(rows_per_step=8), PATCH, 0)
    with pytest.raises(UserError, match="fewer than one step; lower data.rows_per_step=8"):
        plan.require_step()


@pytest.mark.parametrize("buckets", [1, 4, 1000])
def test_buckets_hold_every_example_once_and_what_padding_would(buckets):
    index = make_index(300, np.random.default_rng(3), groups=(1, 8), text=((5, 30),))
    config = DataConfig(row_tokens=1024, row_examples=40, row_text=200, buckets=buckets)
    epoch = Plan(index, config, PATCH, 0).epoch(0)
    assert sorted(epoch.examples.tolist()) == list(range(300))
    counts = np.diff(epoch.offsets)
    longest = np.maximum.reduceat(epoch.tokens, epoch.offsets[:-1])
    assert (counts * longest <= 1024).all()
    assert counts.max() <= 1024 // (epoch.tokens.max() if buckets == 1 else epoch.tokens.min())
    assert epoch.fill(1024) < Plan(index, dataclasses.replace(config, buckets=0), PATCH, 0).epoch(0).fill(1024)


def test_a_fraction_of_the_data_is_an_epoch_of_it():
    index = make_index(200, np.random.default_rng(4), text=((5, 30),))
    config = DataConfig(row_tokens=1024, row_text=200, fraction=0.3)
    plan = Plan(index, config, PATCH, 0)
    first, second = (sorted(plan.epoch(n).examples.tolist()) for n in (0, 1))
    assert first == second and len(first) == 60
    with pytest.raises(UserError, match="data.fraction=0 is not a share"):
        DataConfig(fraction=0.0)
