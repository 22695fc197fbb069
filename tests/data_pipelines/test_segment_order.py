"""The order of examples in a row: the same rows, never more attention blocks, and fewer where lengths are mixed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.packing.segment_order import BLOCK, block_pairs, order_segments
from vdit import flops


def pairs(rows) -> list[int]:
    return [flops.attention_area(np.array(row, int), BLOCK, BLOCK) // BLOCK**2 for row in rows]


@settings(max_examples=50)
@given(st.lists(st.lists(st.integers(1, 4000), min_size=1, max_size=80), min_size=1, max_size=6))
def test_rows_keep_their_examples_and_touch_no_more_blocks(rows):
    lengths, offsets = np.concatenate(rows), np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    order = order_segments(lengths, offsets)
    row_of = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    np.testing.assert_array_equal(np.sort(order), np.arange(len(lengths)))
    np.testing.assert_array_equal(row_of[order], row_of)
    after = np.split(lengths[order], offsets[1:-1])
    assert all(new <= old for new, old in zip(pairs(after), pairs(rows), strict=True))


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4000), min_size=1, max_size=20))
def test_block_pairs_are_those_that_the_kernel_runs(lengths):
    real = [n for n in lengths if n]
    assert block_pairs(np.array([lengths]))[0] == pairs([real])[0]


def test_long_examples_begin_where_they_fit():
    """2,048 behind 300 would touch five blocks; behind 512 it touches its four."""
    lengths = np.array([300, 2048, 212])
    order = order_segments(lengths, np.array([0, 3]))
    assert lengths[order][0] == 2048


@pytest.mark.parametrize("group", [(700, 324), (700, 310, 526), (1100, 300, 205, 443), (1024, 900, 124)], ids=str)
def test_examples_that_fill_whole_blocks_come_together(group):
    lengths = np.array([group[0], 901, *group[1:], 97])
    ordered = lengths[order_segments(lengths, np.array([0, len(lengths)]))]
    assert np.cumsum(ordered)[len(group) - 1] == sum(group)


def test_mixed_rows_touch_fewer_blocks():
    rng = np.random.default_rng(0)
    rows = [np.exp(rng.uniform(np.log(32), np.log(6000), 12)).astype(int) for _ in range(300)]
    lengths, offsets = np.concatenate(rows), np.arange(0, 3612, 12)
    after = np.split(lengths[order_segments(lengths, offsets)], offsets[1:-1])
    assert sum(pairs(after)) < 0.913 * sum(pairs(rows))
