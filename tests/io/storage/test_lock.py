"""One writer of a folder: who is refused, who takes over, and who notices."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vdit.errors import UserError
from vdit.io.files import write_text
from vdit.io.storage import lock
from vdit.io.storage.lock import NAME, TakenOver, one_writer, writer_of

HOLD = """
import sys, time
from vdit.io.storage.lock import one_writer
with one_writer(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def other_writer(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def change(folder: Path, **values: object) -> None:
    """What another machine writes into the file, say."""
    path = folder / NAME
    write_text(path, json.dumps({**json.loads(path.read_text()), **values}))


def test_the_second_process_is_refused_in_one_line_that_names_the_first(tmp_path):
    with other_writer(tmp_path) as process:
        found = writer_of(tmp_path)
        assert found and found.pid == process.pid
        with (
            pytest.raises(UserError, match=f"written by process {process.pid} on .*; wait for it, or stop it"),
            one_writer(tmp_path),
        ):
            pass  # fmt: skip
    assert writer_of(tmp_path) is None


def test_a_stopped_process_still_is_the_writer_and_the_line_says_what_to_do(tmp_path):
    with other_writer(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        while lock._process(process.pid)[0] != "T":
            time.sleep(0.01)
        with pytest.raises(UserError, match=f"stopped: `kill -CONT {process.pid}` lets it go on"), one_writer(tmp_path):
            pass


def test_a_dead_writer_is_followed_at_once(tmp_path):
    with other_writer(tmp_path) as process:
        process.kill()
        process.wait()
        assert (tmp_path / NAME).exists()
        with one_writer(tmp_path) as held:
            held.check()
    assert not (tmp_path / NAME).exists()


def test_a_process_with_the_number_of_a_dead_writer_is_not_taken_for_it(tmp_path):
    with other_writer(tmp_path):
        change(tmp_path, born="1")  # the process lives, but began at another moment
        with one_writer(tmp_path) as held:
            held.check()


def test_a_writer_on_another_machine_lives_as_long_as_it_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lock._File, "renew", 1.0)
    with other_writer(tmp_path):
        change(tmp_path, machine="another", host="elsewhere", token="theirs")
    counting = threading.Event()

    def count() -> None:
        for number in itertools.count(1):
            if counting.wait(0.02):
                return
            change(tmp_path, count=number)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        with pytest.raises(UserError, match="on elsewhere since"), one_writer(tmp_path):
            pass
    finally:
        counting.set()
        thread.join()
    monkeypatch.setattr(lock._File, "renew", 0.05)
    with one_writer(tmp_path) as held:  # now it is silent
        held.check()
    assert "looking for 0 s whether it still is" in capsys.readouterr().err


def test_a_writer_that_was_frozen_notices_before_it_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(lock._File, "renew", 0.02)
    with one_writer(tmp_path) as held:
        change(tmp_path, token="theirs", host="elsewhere", pid=7)
        with pytest.raises(TakenOver, match=rf"process 7 on elsewhere.*this process, {os.getpid()}, writes nothing"):
            held.check()
        held._thread.join(10)
        assert not held._thread.is_alive(), "it would go on counting"
    left = json.loads((tmp_path / NAME).read_text())
    assert left["token"] == "theirs", "the new writer's name was removed"


def test_a_writer_whose_file_was_removed_notices(tmp_path):
    with one_writer(tmp_path) as held:
        (tmp_path / NAME).unlink()
        with pytest.raises(TakenOver, match="has lost its"):
            held.check()


def test_of_many_that_find_a_dead_writer_one_wins(tmp_path):
    with other_writer(tmp_path) as process:
        process.kill()
        process.wait()
    code = "import sys\nfrom vdit.io.storage.lock import one_writer\nsys.stdin.readline()\n" + HOLD
    several = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]  # fmt: skip
    try:
        for each in several:
            each.stdin.write("go\n")
            each.stdin.flush()
        losers = [each for each in several if each.stdout.readline() != "held\n"]
        assert len(losers) == 3
        assert all("is written by process" in each.stderr.read() for each in losers)
    finally:
        for each in several:
            each.kill()
            each.communicate()


def test_a_copy_of_a_folder_has_no_writer(tmp_path):
    with one_writer(tmp_path / "a"):
        shutil.copytree(tmp_path / "a", tmp_path / "b")
        assert writer_of(tmp_path / "a") and not writer_of(tmp_path / "b")
        with one_writer(tmp_path / "b") as copy:
            copy.check()


def test_within_another_of_the_same_folder_it_is_that_one(tmp_path):
    with one_writer(tmp_path) as outer:
        with one_writer(tmp_path / "." / "") as inner:
            assert inner is outer
        outer.check()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with one_writer(tmp_path / "a" / "b"):
        assert writer_of(tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    with one_writer(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_damaged_file_names_nobody(tmp_path):
    (tmp_path / NAME).write_bytes(b'{"token": "\xff')
    with one_writer(tmp_path) as held:
        held.check()


def test_where_no_folder_can_be_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be made"), one_writer(tmp_path / "file" / "run"):
        pass


def test_in_a_bucket_the_last_of_two_at_once_wins(monkeypatch):
    monkeypatch.setattr(lock, "SETTLE", 0.0)
    first, second = (dataclasses.replace(WRITER, token=token) for token in ("a", "b"))
    cell = lock._Object("memory://bucket/run/" + NAME)
    assert cell.read() is None
    assert cell.replace(None, first)
    assert not cell.replace(None, second), "the first was not seen"
    assert cell.replace(first, dataclasses.replace(first, count=1))
    monkeypatch.setattr(lock.time, "sleep", lambda _: lock.remote.write_bytes(cell._url, other))
    other = json.dumps(dataclasses.asdict(second)).encode()
    third = dataclasses.replace(WRITER, token="c")
    assert not cell.replace(dataclasses.replace(first, count=1), third), "the last was not seen"
    assert cell.read() == second
    assert cell.replace(second, None)
    assert cell.read() is None


WRITER = lock.Writer("", "host", 1, "machine", "1", 0.0, "train", "run")
