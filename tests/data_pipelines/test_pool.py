"""Worker processes that crash and hang: each costs one input, never the build."""

import pathlib
import time

import numpy as np
import pytest
from fake_source import HANG, LONG, bad_clips

from data_pipelines.building import staged
from data_pipelines.building.pool import Pool
from data_pipelines.building.worker import AHEAD, Job
from data_pipelines.media.clip import Clip, Input, Options, Rejection
from vdit.errors import UserError


def do(tmp_path: pathlib.Path, groups: list[list[str]], workers: int = 2, **arguments) -> list[str]:
    """What becomes of inputs of these names: "ok" or the reason, in order."""
    folder = staged.make_folder(tmp_path)
    jobs = [
        Job(number, tuple(Input(item, "train", path=item) for item in items), bad_clips, Options(), folder)
        for number, items in enumerate(groups)
    ]
    found = []
    with Pool(workers, **{"time_limit": 1.5, **arguments}) as pool:
        for number, chunk in enumerate(pool.run(jobs)):
            assert (chunk.job, chunk.index, chunk.is_last()) == (number, 0, True)
            outcomes = [entry.outcome() for entry in chunk.read()]
            assert [outcome.item for outcome in outcomes] == groups[number]
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
    assert time.monotonic() - started < HANG
    assert [bool(staged.finished_chunks(tmp_path / "staged", number)) for number in range(3)] == [False, True, True]
    found = do(tmp_path, [["hang", "b"]], time_limit=0.2, reject_timeouts=True)
    assert found == ["no frame within 0.8 s, tried 3 times", "ok"]


def test_a_fault_costs_the_file(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [["fault", "a"]]) == ["ZeroDivisionError: a fault of the program", "ok"]


def long_job(tmp_path: pathlib.Path, items: list[str]) -> Job:
    folder = staged.make_folder(tmp_path)
    return Job(0, tuple(Input(item, "train", path=item) for item in items), bad_clips, Options(), folder)


def test_long_inputs_are_handed_over_in_chunks(tmp_path: pathlib.Path) -> None:
    """No more than a few chunks lie on disk, however slowly they are taken. An empty one says that no more follow."""
    items, most = [], 0
    with Pool(1, 5) as pool:
        for number, chunk in enumerate(pool.run([long_job(tmp_path, ["long: whole"])])):
            assert chunk.index == number
            time.sleep(0.02)
            items += [entry.outcome().video_TYXC[0, 0, 0, 0] for entry in chunk.read()]
            most = max(most, len(list(chunk.folder.glob("*.bin"))))
            chunk.bin.unlink()
    assert items == list(range(LONG)) and number == LONG // 3 and most <= AHEAD + 1


def test_a_crash_in_a_long_input_keeps_what_was_handed_over(tmp_path: pathlib.Path) -> None:
    job = long_job(tmp_path, ["a", "long: crash", "b"])
    for _ in range(2):  # the second time everything is there
        with Pool(1, 5) as pool:
            outcomes = [entry.outcome() for chunk in pool.run([job], lambda _: False) for entry in chunk.read()]
        kept = [f"long: crash [{i}]" for i in range(len(outcomes) - 3)]
        assert [outcome.item for outcome in outcomes] == ["a", *kept, "long: crash", "b"] and 9 <= len(kept) <= 12
        assert isinstance(outcomes[-2], Rejection) and "crashed (signal 6)" in outcomes[-2].reason


def test_order_is_kept(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [[f"input {i}"] for i in range(40)], workers=3) == ["ok"] * 40


def test_files_are_written_over(tmp_path: pathlib.Path) -> None:
    folder = staged.make_folder(tmp_path)
    for number, frames in enumerate((9, 1, 5, 13)):
        video = np.random.default_rng(number).integers(0, 256, (frames, 8, 8, 3), np.uint8)
        staged.write(folder, number, 0, [(0, Clip("clip", number, "train", video, 12.0, {}))], lambda _: None)
        (chunk,) = staged.finished_chunks(folder, number)
        assert not list((folder / staged.SPARE).iterdir()) and chunk.has_arrays()
        (entry,) = chunk.read()
        np.testing.assert_array_equal(entry.outcome().video_TYXC, video)
        chunk.give_back()
        assert len(list((folder / staged.SPARE).iterdir())) == 1 and not chunk.has_arrays()
