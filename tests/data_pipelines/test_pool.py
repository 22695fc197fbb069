"""Worker processes that crash and hang: each costs one input, never the build."""

import pathlib
import time

import pytest
from fake_source import FakeEncoder, bad_clips

from data_pipelines import staged
from data_pipelines.clip import Input, Options, Rejection
from data_pipelines.pool import Pool
from data_pipelines.worker import Job
from vdit.config import UserError


def do(tmp_path: pathlib.Path, groups: list[list[str]], workers: int = 2, **arguments) -> list[str]:
    """What becomes of inputs of these names: "ok" or the reason, in order."""
    folder = tmp_path / "staged"
    folder.mkdir(exist_ok=True)
    jobs = [
        Job(number, tuple(Input(item, "train", path=item) for item in items), bad_clips, Options(), folder)
        for number, items in enumerate(groups)
    ]
    found = []
    with Pool(workers, **{"time_limit": 1.5, **arguments}) as pool:
        for number, job in enumerate(pool.run(jobs)):
            assert job.number == number
            outcomes = [entry.outcome() for entry in staged.read(folder, job.number)]
            assert [outcome.item for outcome in outcomes] == [each.item for each in job.inputs]
            found += [outcome.reason if isinstance(outcome, Rejection) else "ok" for outcome in outcomes]
    return found


def test_a_crash_costs_one_input(tmp_path: pathlib.Path) -> None:
    once = f"crash-once: {tmp_path / 'mark'}"
    found = do(tmp_path, [["a", "crash", "b"], ["c"], [once, "d"], ["e"]])
    assert found == ["ok", "the decoder crashed (signal 6), tried 3 times", "ok", "ok", "ok", "ok", "ok"]


def test_a_hang_is_tried_again(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [["a", f"hang-once: {tmp_path / 'mark'}", "b"], ["c"]]) == ["ok"] * 4
    assert (tmp_path / "mark").exists()


def test_a_hang_is_never_final_by_itself(tmp_path: pathlib.Path) -> None:
    """What else can be done is done before the build stops; it is rejected only where the user wants that."""
    started = time.monotonic()
    with pytest.raises(UserError, match=r"no frame within 0.8 s from hang, tried 3 times; .*--reject_timeouts"):
        do(tmp_path, [["hang"], ["a"], ["b"]], time_limit=0.2)
    assert time.monotonic() - started < 20
    assert [staged.is_finished(tmp_path / "staged", number) for number in range(3)] == [False, True, True]
    found = do(tmp_path, [["hang", "b"]], time_limit=0.2, reject_timeouts=True)
    assert found == ["no frame within 0.8 s, tried 3 times", "ok"]


def test_a_fault_costs_the_file(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [["fault", "a"]]) == ["ZeroDivisionError: a fault of the program", "ok"]


def test_order_is_kept(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [[f"input {i}"] for i in range(40)], workers=3) == ["ok"] * 40
    assert FakeEncoder().encode(["x"])
