import json
import os
import subprocess
import sys

import numpy as np
import pytest
import tiny
from tensorboardX import SummaryWriter
from tensorboardX.proto.event_pb2 import Event

from vdit.errors import UserError
from vdit.training.record import trackers
from vdit.training.record.metrics import MetricWriter, read_metrics

CONFIG = tiny.tiny_config()
RED = np.full((4, 6, 3), (255, 0, 0), np.uint8)


def events(workdir) -> list[Event]:
    """Of all attempts, in the order in which TensorBoard reads them."""
    files = sorted((workdir / "tensorboard").glob("events*"))
    return [event for file in files for event in trackers._events(file.read_bytes())]


def points(workdir, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a tag: a restart hides what came after the step that it resumes from."""
    shown: list[tuple[int, float]] = []
    for event in events(workdir):
        if event.session_log.status:
            shown = [point for point in shown if point[0] < event.step]
        shown += [(event.step, value.simple_value) for value in event.summary.value if value.tag == tag]
    return sorted(shown)


def attempt(workdir, resumed_at: int, steps, killed: bool = False) -> None:
    """Writes rows; of a process that was killed nothing reached TensorBoard's files after its first two steps."""
    writer = MetricWriter(workdir, resumed_at, CONFIG)
    for number, step in enumerate(steps):
        writer.write({"step": step, "loss": step / 8, "started": 100.0, "seconds": step})
        if killed and number == 1:
            [board] = writer._trackers
            board._writer.file_writer.flush()
            board.scalars = lambda *_: None
    writer.close()


def test_points_that_a_killed_run_had_not_written_are_filled_in(tmp_path):
    attempt(tmp_path, 0, [1, 2, 3, 4, 5], killed=True)
    assert points(tmp_path, "train/loss") == [(1, 1 / 8), (2, 2 / 8)]
    attempt(tmp_path, 4, [5, 6])
    assert points(tmp_path, "train/loss") == [(step, step / 8) for step in range(1, 7)]
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    refilled = [event.wall_time for event in events(tmp_path) if event.step == 3 and event.summary.value]
    assert set(refilled) == {103.0}, "at the time at which it was found"


def test_points_that_are_there_are_not_written_twice(tmp_path):
    attempt(tmp_path, 0, [1, 2, 3])
    attempt(tmp_path, 2, [3, 4])
    written = [event.step for event in events(tmp_path) for value in event.summary.value if value.tag == "train/loss"]
    assert written == [1, 2, 3, 3, 4]
    assert points(tmp_path, "train/loss") == [(1, 0.125), (2, 0.25), (3, 0.375), (4, 0.5)]


def test_of_the_newest_step_only_what_is_missing_is_filled_in(tmp_path):
    board = SummaryWriter(str(tmp_path / "tensorboard"), filename_suffix=".0")
    board.add_scalar("train/loss", 0.5, 1)
    board.close()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 1, "validation": {"loss": 0.25}}\n')
    attempt(tmp_path, 1, [])
    assert points(tmp_path, "train/loss") == [(1, 0.5)] and points(tmp_path, "validation/loss") == [(1, 0.25)]


def test_a_file_that_was_cut_off_is_read_to_its_last_whole_event(tmp_path):
    attempt(tmp_path, 0, [1, 2])
    [file] = (tmp_path / "tensorboard").glob("events*")
    file.write_bytes(file.read_bytes()[:-5])
    assert trackers.newest_point(tmp_path / "tensorboard", 9)[0] in (1, 2)
    assert trackers.newest_point(tmp_path / "tensorboard", 1) == (1, {"train/loss", "time/seconds_of_attempt"})
    assert trackers.newest_point(tmp_path / "nothing", 9) == (-1, set())


def test_pictures_are_kept_and_shown(tmp_path):
    writer = MetricWriter(tmp_path, 0, CONFIG)
    writer.add_images(5, {"text": RED})
    writer.close()
    assert (tmp_path / "samples" / "text-5.png").exists()
    [value] = [value for event in events(tmp_path) for value in event.summary.value]
    assert value.tag == "samples/text" and (value.image.height, value.image.width) == (4, 6)


def test_no_tracker_is_one_too(tmp_path):
    writer = MetricWriter(tmp_path, 0, tiny.change(CONFIG, train={"tracker": ""}))
    writer.write({"step": 1})
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl"]


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match="train.tracker='mlflow' is not one of tensorboard, wandb, trackio"):
        tiny.change(CONFIG, train={"tracker": "tensorboard,mlflow"})


def test_a_tracker_that_is_not_installed_says_how(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"--tracker=trackio needs a package .*: pip install trackio"):
        MetricWriter(tmp_path, 0, tiny.change(CONFIG, train={"tracker": "trackio"}))


class FakeTrackio:
    """Trackio's interface, which keeps what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def init(self, **values) -> None:
        self.told.append(values)

    def log(self, values, step) -> None:
        self.told.append((step, values))

    def Image(self, array):  # noqa: N802
        return array.shape

    def finish(self) -> None:
        self.told.append("finished")


def test_trackio_is_told_the_same(tmp_path, monkeypatch):
    fake = FakeTrackio()
    monkeypatch.setitem(sys.modules, "trackio", fake)
    writer = MetricWriter(tmp_path / "a run", 0, tiny.change(CONFIG, train={"tracker": "trackio"}))
    (tmp_path / "a run").mkdir()
    writer.write({"step": 1, "loss": 0.5})
    writer.add_images(1, {"text": RED})
    writer.close()
    begun, *rest = fake.told
    assert begun["project"] == "vdit" and begun["resume"] == "allow" and begun["name"].startswith("a_run-")
    assert begun["config"]["model"]["width"] == CONFIG.model.width
    assert rest == [(1, {"train/loss": 0.5}), (1, {"samples/text": (4, 6, 3)}), "finished"]


OFFLINE = """
import sys
from pathlib import Path
import numpy as np
import tiny
from vdit.training.record.metrics import MetricWriter
from etils import epath
config = tiny.change(tiny.tiny_config(), train={"tracker": "wandb"})
writer = MetricWriter(epath.Path(sys.argv[1]), 0, config)
for step in (1, 2):
    writer.write({"step": step, "loss": step / 8})
writer.add_images(2, {"text": np.zeros((4, 6, 3), np.uint8)})
writer.close()
"""


def offline_rows(file) -> list[dict]:
    """What an offline run logged: records in LevelDB's log format, after a header of 7 bytes, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole, rows = file.read_bytes(), 7, b"", []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if left < 7 or kind == 0:
            at += left
            continue
        whole, at = whole + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # a whole record, or the last part of one
            record, whole = Record.FromString(whole), b""
            if record.HasField("history"):
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def test_wandb_keeps_a_run_on_this_machine_when_offline(tmp_path):
    pytest.importorskip("wandb")
    environment = tiny.environment(PYTHONPATH=os.pathsep.join([".", "tests"]), WANDB_MODE="offline")
    (tmp_path / "run").mkdir()
    command = [sys.executable, "-c", OFFLINE, str(tmp_path / "run")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == "", "nothing comes between a run and its terminal"
    [file] = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    rows = offline_rows(file)
    losses = [(row["_step"], row["train/loss"]) for row in rows if "train/loss" in row]
    assert losses == [(1, 0.125), (2, 0.25)]
    assert any("samples/text" in name for row in rows for name in row)
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/files/media/images/**/*.png"))
