"""A run that is killed and goes on gives what an undisturbed run gives, bit for bit."""

import functools
import shutil
from unittest import mock

import pytest
import tiny

from vdit.evaluation import validation
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import checkpoint_steps

CONFIG = tiny.tiny_config(steps=5, evaluate_every=3)
ROWS = [(1, False), (2, False), (3, False), (3, True), (4, False), (5, False), (5, True)]  # step, validation


@functools.cache
def undisturbed(checkpoint_every: int):
    """(config, folder of copies of the workdir made after every row, result) of a run that nothing happened to."""
    config = tiny.change(CONFIG, train={"checkpoint_every": checkpoint_every})
    return tiny.recorded(config, tiny.folder() / f"undisturbed-{checkpoint_every}")


def test_the_undisturbed_run_writes_every_row_once():
    _, _, (_, position, rows) = undisturbed(1)
    assert [(row["step"], "validation" in row) for row in rows] == ROWS
    assert (position["step"], position["next_row"], position["skipped"]) == (5, 10, [])


@pytest.mark.parametrize(
    ("checkpoint_every", "rows"),
    [*((1, rows) for rows in range(1, len(ROWS) + 1)), (3, 2), (3, 6)],  # with 3, steps are done again
)
def test_killed_after_any_row(tmp_path, checkpoint_every, rows):
    config, copies, expected = undisturbed(checkpoint_every)
    workdir = shutil.copytree(copies / str(rows), tmp_path / "run")
    assert len(read_metrics(workdir)) == rows
    before = [0, *checkpoint_steps(workdir)][-1]
    assert before <= ROWS[rows - 1][0]
    tiny.train(config, workdir)
    tiny.assert_same_result(workdir, expected, config)


def test_stopped_again_and_again(tmp_path):
    """By an exception, three rows after each start; a save that was begun is finished."""
    config, _, expected = undisturbed(1)

    class Stop(Exception):
        pass

    def stop_after_three(row, seen) -> None:
        seen.append(row)
        if len(seen) == 3:
            raise Stop

    stops, finished = 0, False
    while not finished and stops < 8:
        try:
            tiny.train(config, tmp_path, functools.partial(stop_after_three, seen=[]))
            finished = True
        except Stop:
            stops += 1
    assert finished and stops >= 2
    tiny.assert_same_result(tmp_path, expected, config)


def test_killed_during_validation(tmp_path):
    """The checkpoint of a step must not be there before its validation is written."""
    config, _, expected = undisturbed(1)

    class Killed(Exception):
        pass

    with mock.patch.object(validation, "evaluate_run", side_effect=Killed), pytest.raises(Killed):
        tiny.train(config, tmp_path)
    assert read_metrics(tmp_path)[-1]["step"] == 3
    tiny.train(config, tmp_path)
    tiny.assert_same_result(tmp_path, expected, config)


def test_an_unfinished_save_does_not_count(tmp_path):
    config, copies, expected = undisturbed(1)
    workdir = shutil.copytree(copies / "run", tmp_path / "run")
    (workdir / "checkpoints" / "5").rename(workdir / "checkpoints" / "5.orbax-checkpoint-tmp")
    assert checkpoint_steps(workdir) == [4]
    tiny.train(config, workdir)
    tiny.assert_same_result(workdir, expected, config)


def test_a_finished_run_is_left_as_it_is(tmp_path):
    config, copies, expected = undisturbed(1)
    workdir = shutil.copytree(copies / "run", tmp_path / "run")
    result = tiny.train(config, workdir)
    assert result["validation"] == expected[2][-1]["validation"]
    assert result["step"] == 5 and result["flops"] == expected[2][-1]["flops"]
    tiny.assert_same_result(workdir, expected, config)
