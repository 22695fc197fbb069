import json

import pytest
import tiny
from tensorboardX.proto.event_pb2 import Event

from vdit.training.record.metrics import MetricWriter, read_metrics

CONFIG = tiny.tiny_config()


def write(workdir, steps, resumed_at: int = 0) -> None:
    writer = MetricWriter(workdir, resumed_at, CONFIG)
    for step in steps:
        writer.write({"step": step, "loss": step / 8, "validation": {"val": {"loss": 0.5}, "interval": [0.1, 0.2]}})
    writer.close()


def test_rows_come_back_in_order(tmp_path):
    write(tmp_path, [1, 2, 3])
    rows = read_metrics(tmp_path)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[2] == {"step": 3, "loss": 0.375, "validation": {"val": {"loss": 0.5}, "interval": [0.1, 0.2]}}


def test_a_new_run_has_no_rows(tmp_path):
    assert read_metrics(tmp_path / "nothing") == []


def test_rows_after_the_restored_step_are_dropped(tmp_path):
    write(tmp_path, [1, 2, 3, 3, 4, 5])
    write(tmp_path, [4], resumed_at=3)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 3, 4]


@pytest.mark.parametrize("cut", [1, 5, 30])
def test_a_row_that_was_cut_off_is_passed_over_and_dropped(tmp_path, cut):
    write(tmp_path, [1, 2, 3])
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[: -1 - cut])
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]
    write(tmp_path, [3], resumed_at=2)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3]
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_a_row_is_on_disk_when_write_returns(tmp_path):
    writer = MetricWriter(tmp_path, 0, CONFIG)
    for step in (1, 2):
        writer.write({"step": step})
        assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, step + 1))
    writer.close()


def test_tensorboard_gets_every_number(tmp_path):
    write(tmp_path, [1, 2])
    [file] = (tmp_path / "tensorboard").glob("events*")
    data, scalars = file.read_bytes(), []
    while data:  # length (8 bytes), its checksum (4), the event, its checksum (4)
        size = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + size])
        scalars += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
        data = data[16 + size :]
    assert ("train/loss", 2, 0.25) in scalars
    assert ("validation/val/loss", 1, 0.5) in scalars
