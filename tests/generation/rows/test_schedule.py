"""Rows shared out over shards: every evaluation once, in order, never in two places at a time, in the least time."""

import numpy as np
import pytest

from vdit.generation.rows.schedule import NONE, schedule_rows


@pytest.mark.parametrize("shards", [1, 2, 3, 8])
@pytest.mark.parametrize("evaluations", [[5], [4, 4, 4], [20] * 5, [20, 39, 20, 7], [1, 2, 3, 4, 5, 6, 7], [100, 1, 1]])
def test_every_evaluation_is_done_once_and_in_order(evaluations, shards):
    plan = schedule_rows(evaluations, shards)
    done = [0] * len(evaluations)
    for schedule in plan:
        assert schedule.evaluations > 0 and len(schedule.rows_B) == len(schedule.first_B) == shards
        own = [row for row in schedule.rows_B if row != NONE]
        assert len(own) == len(set(own)), "a row is on two shards at once"
        for row, first in zip(schedule.rows_B, schedule.first_B, strict=True):
            if row != NONE:
                assert first == done[row]
                done[row] += schedule.evaluations
    assert done == evaluations
    least = max(max(evaluations), int(np.ceil(sum(evaluations) / shards)))
    assert sum(schedule.evaluations for schedule in plan) == least


def test_a_row_moves_between_shards():
    assert [schedule.rows_B for schedule in schedule_rows([4, 4, 4], 2)] == [(0, 1), (0, 2), (1, 2)]
    assert [schedule.first_B for schedule in schedule_rows([4, 4, 4], 2)] == [(0, 0), (2, 0), (2, 2)]
