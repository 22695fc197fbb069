"""Processes that crash and hang: each costs one input, never the build."""

import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder, bad_clips

from data_pipelines.building.encoders import Encoders
from data_pipelines.building.engines.isolation import Limits
from data_pipelines.building.engines.local_engine import LocalEngine
from data_pipelines.building.jobs.jobs import Job, Recipe
from data_pipelines.building.jobs.result import finished_jobs, load_result
from data_pipelines.media.clip import Input, Options
from vdit.errors import UserError
from vdit.patches import Patch

LIMITS = Limits(1.5)


def recipe(tmp_path: pathlib.Path) -> Recipe:
    (tmp_path / "jobs").mkdir(exist_ok=True)
    return Recipe(bad_clips, Options(), Patch(), 1, False, str(tmp_path), str(tmp_path / "jobs"))


def make_jobs(groups: list[list[str]]) -> list[Job]:
    return [
        Job(
            number,
            "train",
            f"shard-{number}",
            tuple(Input(item, "train", path=item) for item in items),
            tuple(range(len(items))),
        )
        for number, items in enumerate(groups)
    ]


def do(tmp_path: pathlib.Path, groups: list[list[str]], workers: int = 2, limits: Limits = LIMITS) -> list[str]:
    """What becomes of inputs of these names: "ok" or the reason, in order."""
    jobs = make_jobs(groups)
    done = list(LocalEngine(workers, limits, Encoders(FakeEncoder())).run(recipe(tmp_path), jobs))
    assert sorted(job.number for job in done) == list(range(len(groups)))
    found = []
    for job in jobs:
        result = load_result(str(tmp_path / "jobs" / job.result))
        assert [entry.item for entry in result.entries] == [each.item for each in job.inputs]
        assert result.shard.examples == sum(entry.status == "accepted" for entry in result.entries)
        found += [entry.reason if entry.status == "rejected" else "ok" for entry in result.entries]
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
    groups = [["hang"], ["a"], ["b"]]
    with pytest.raises(UserError, match=r"no frame within 0.8 s from hang, tried 3 times; .*--reject_timeouts"):
        do(tmp_path, groups, limits=Limits(0.2))
    assert finished_jobs(recipe(tmp_path), make_jobs(groups)) == {1, 2}
    found = do(tmp_path, [["hang", "b"]], limits=Limits(0.2, reject=True))
    assert found == ["no frame within 0.8 s, tried 3 times", "ok"]


def test_a_fault_costs_the_file(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [["fault", "a"]]) == ["ZeroDivisionError: a fault of the program", "ok"]


def test_a_caption_that_is_no_unicode_costs_the_clip(tmp_path: pathlib.Path) -> None:
    (reason, other) = do(tmp_path, [["surrogate", "a"]])
    assert reason == r"its caption '\udc80' is not valid Unicode; write it as UTF-8" and other == "ok"


def test_a_crash_in_the_middle_of_an_input_keeps_nothing_of_it(tmp_path: pathlib.Path) -> None:
    """So that the shard does not depend on how far the decoder came."""
    found = do(tmp_path, [["a", "many: crash", "b"]])
    assert found == ["ok", "the decoder crashed (signal 6), tried 3 times", "ok"]


def test_many_jobs(tmp_path: pathlib.Path) -> None:
    assert do(tmp_path, [[f"input {i}"] for i in range(40)], workers=3) == ["ok"] * 40


def test_a_damaged_result_has_its_job_done_again(tmp_path: pathlib.Path) -> None:
    jobs = make_jobs([["a"], ["b"], ["c"], ["d"]])
    list(LocalEngine(1, Limits(5), Encoders(FakeEncoder())).run(recipe(tmp_path), jobs))
    assert finished_jobs(recipe(tmp_path), jobs) == {0, 1, 2, 3}
    results = [tmp_path / "jobs" / job.result for job in jobs]
    results[0].write_bytes(results[0].read_bytes()[:-30])
    results[1].write_bytes(b"")
    (tmp_path / "shard-2").write_bytes((tmp_path / "shard-2").read_bytes()[:-5])
    assert finished_jobs(recipe(tmp_path), jobs) == {3}
    with pytest.raises(UserError, match="000001.npz is damaged"):
        load_result(str(results[1]))


def test_an_input_that_breaks_its_word_is_a_fault_of_the_program(tmp_path: pathlib.Path) -> None:
    engine = LocalEngine(1, Limits(5), Encoders(FakeEncoder()))
    with pytest.raises(RuntimeError, match="stray is of the split val, its input of train"):
        list(engine.run(recipe(tmp_path), make_jobs([["stray"]])))


def test_a_job_without_clips_leaves_a_shard_without_records(tmp_path: pathlib.Path) -> None:
    do(tmp_path, [["fault"]])
    shard = load_result(str(tmp_path / "jobs" / "000000.npz")).shard
    assert shard.examples == 0 and shard.kind is None and (tmp_path / "shard-0").stat().st_size == shard.bytes


def test_clips_are_as_they_were(tmp_path: pathlib.Path) -> None:
    from array_record.python import array_record_module

    from data_pipelines.reading.records import FastDecoder

    do(tmp_path, [["a", "abc"]])
    reader = array_record_module.ArrayRecordReader(str(tmp_path / "shard-0"))
    for record, length in zip(reader.read_all(), (1, 3), strict=True):
        _, fps, video_TYXC, text_ME = FastDecoder("uint8", 3)(record, "short")
        np.testing.assert_array_equal(video_TYXC, np.full((5, 8, 8, 3), length, np.uint8))
        assert fps == 8 and text_ME.tolist() == [[4, 4, 4]]
