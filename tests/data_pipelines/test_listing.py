"""Inputs and jobs on the disk: as many as there are, in little memory."""

import json
import pathlib
import subprocess
import sys

import pytest

from benchmarks import build_scale
from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.jobs.jobs import plan_jobs
from data_pipelines.building.jobs.listing import Listing
from data_pipelines.media.clip import Input
from vdit.errors import UserError


def test_inputs_come_back_as_they_were() -> None:
    inputs = [
        Input(f"{i}", "val" if i % 3 else "train", f"/{i}", i, {"a": "ä"}, (i, None), ("note",)) for i in range(9)
    ]
    listing = Listing(iter(inputs))
    assert list(listing) == list(listing) == inputs and len(listing) == 9 and listing.weight == 36
    jobs = plan_jobs(listing, "clips")
    assert [job.places for job in jobs] == [(0, 3, 6), (1, 2, 4, 5, 7, 8)] and jobs.counts == [3, 6]
    assert [each for job in jobs for each in job.inputs] == [inputs[place] for job in jobs for place in job.places]
    assert [job.result for job in jobs.names] == ["000000.npz", "000001.npz"] and len(jobs) == 2


def test_no_inputs() -> None:
    assert list(Listing([])) == [] and len(plan_jobs([], "clips")) == 0


def test_memory_does_not_grow_with_the_number_of_inputs(tmp_path: pathlib.Path) -> None:
    """20,000 files more take less than 0.2 KiB each, for what the allocator keeps; in memory they took 0.8 KiB."""
    found = {}
    for count in (2_000, 22_000):
        folder = tmp_path / f"{count}"
        for number in range(count):
            if number % 1000 == 0:
                (folder / f"{number // 1000:03d}").mkdir(parents=True)
            (folder / f"{number // 1000:03d}" / f"{number:06d}.png").touch()
        code = f"from benchmarks.build_scale import plan; plan({str(folder)!r})"
        done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
        _, _, found[count], jobs = json.loads(done.stdout)
        assert jobs == -(-count // 128)
    assert build_scale.INPUTS == 200_000
    assert (found[22_000] - found[2_000]) * 1024 / 20_000 < 0.2


def test_a_list_that_cannot_be_written_is_one_line(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlite3

    def full(inputs):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr("data_pipelines.building.builder.Listing", full)
    with pytest.raises(UserError, match="list of inputs cannot be written .*is full.*SQLITE_TMPDIR") as caught:
        build(BuildArgs("physics", str(tmp_path / "out")))
    assert "\n" not in str(caught.value)
