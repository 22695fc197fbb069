import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.draws import chosen, visits, window_starts


@settings(max_examples=60)
@given(st.integers(1, 200), st.floats(0.01, 4), st.integers(0, 2**70), st.integers(0, 3))
def test_examples_take_turns_at_any_weight(count, weight, seed, part):
    seen = np.zeros(count, int)
    for epoch in range(12):
        examples, visit = visits(count, weight, epoch, seed, part)
        assert (np.diff(examples) >= 0).all()
        assert abs(len(examples) - count * weight) <= 1
        for i, before in zip(examples, visit, strict=True):
            assert before == seen[i]
            seen[i] += 1
        assert set(seen) <= {int(np.floor((epoch + 1) * weight)), int(np.ceil((epoch + 1) * weight))}


def test_whole_weights_hold_every_example_so_often():
    for weight in (1, 2, 3):
        examples, visit = visits(5, weight, 7, 0, 0)
        assert examples.tolist() == np.repeat(np.arange(5), weight).tolist()
        assert visit.tolist() == [7 * weight + n for _ in range(5) for n in range(weight)]
    assert not len(visits(5, 0, 3, 0, 0)[0])


def test_data_sets_and_seeds_take_other_turns():
    chosen = [visits(100, 0.3, 0, seed, part)[0].tolist() for seed, part in ((0, 0), (1, 0), (0, 1), (0, 0))]
    assert chosen[0] == chosen[3] and chosen[0] != chosen[1] and chosen[0] != chosen[2]


def starts_of(frames: int, window: int, identity: int, visit: np.ndarray, seed: int = 0) -> np.ndarray:
    same = np.ones(len(visit), np.int64)
    return window_starts(frames * same, window * same, (identity * same).astype(np.uint64), visit, seed)


@settings(max_examples=100)
@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 2**62), st.integers(-(2**70), 2**70))
def test_every_turn_of_visits_shows_every_frame(frames, window, identity, seed):
    length = -(-frames // window) + 1
    starts = starts_of(frames, window, identity, np.arange(4 * length), seed)
    assert starts.min() >= 0 and (starts <= max(0, frames - window)).all()
    for turn in starts.reshape(4, length):
        shown = {frame for start in turn for frame in range(start, start + window)}
        assert shown >= set(range(frames))


def test_windows_begin_at_every_frame_and_not_in_step():
    starts = starts_of(201, 17, 5, np.arange(6000))
    inner = np.bincount(starts, minlength=185)[1:-1]
    assert inner.min() > 0 and inner.tolist() == pytest.approx([6000 / 13 / 17] * 183, abs=20)
    first = window_starts(
        np.full(500, 201), np.full(500, 17), np.arange(500).astype(np.uint64), np.zeros(500, np.int64), 0
    )
    assert len(set(first.tolist())) > 100
    assert starts.tolist() != starts_of(201, 17, 5, np.arange(6000), 1).tolist()


def test_clips_that_fit_begin_at_their_first_frame():
    assert not starts_of(17, 17, 3, np.arange(9)).any()


def test_smaller_fractions_are_part_of_larger_ones():
    ids = np.random.default_rng(0).integers(0, 2**63, 500).astype(np.uint64)
    members = np.arange(100, 500)
    kept = [set(chosen(ids, members, fraction).tolist()) for fraction in (0.1, 0.3, 1.0)]
    assert [len(part) for part in kept] == [40, 120, 400]
    assert kept[0] < kept[1] < kept[2] == set(members.tolist())
    assert set(chosen(ids[::-1].copy(), np.arange(400), 0.1).tolist()) == {499 - i for i in kept[0]}  # by id, not place
    assert len(chosen(ids, members[:3], 0.01)) == 1 and not len(chosen(ids, members[:0], 0.5))
