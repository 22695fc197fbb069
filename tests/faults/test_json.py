"""JSON that is torn, deep, of another shape or not UTF-8, in every file that is read: one line that names the file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tiny

from data_pipelines.packing.index import load_meta
from launch.sweeps.state import Folder, State
from launch.sweeps.status import statuses
from vdit.errors import UserError
from vdit.generation.restore import load_run
from vdit.models.autoencoders.registry import _read_config
from vdit.models.autoencoders.wan_vae_config import WanVaeConfig
from vdit.models.text.t5 import T5Config
from vdit.scaling.runs import gather
from vdit.training.record.metrics import read_metrics
from vdit.training.record.workdir import check_dataset, read_config
from vdit.training.recovery import rollback
from vdit.training.recovery.checkpoint import Position

BAD = {
    "empty": b"",
    "torn": b'{"step": 1, "sta',
    "not UTF-8": b'{"a": "\xff\xfe"}',
    "deep": b"[" * 200_000,
    "deep objects": b'{"a":' * 200_000,
    "a list": b"[1, 2]",
    "a number": b"3",
    "null": b"null",
    "other fields": b'{"unheard_of": {"of": []}}',
}
bad = pytest.mark.parametrize("data", BAD.values(), ids=BAD)


def refused(path: Path, data: bytes, read) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    with pytest.raises(UserError) as error:
        read()
    assert path.name in str(error.value) and "\n" not in str(error.value)


@bad
def test_files_of_a_workdir(tmp_path, data):
    _, run = tiny.long_run()
    for name in ("config.json", "dataset.json"):
        shutil.copytree(run, tmp_path / name)
        refused(tmp_path / name / name, data, lambda name=name: load_run(tmp_path / name))
    refused(tmp_path / "x" / "config.json", data, lambda: read_config(tmp_path / "x"))
    refused(tmp_path / "x" / rollback.NAME, data, lambda: rollback.skip_batches(tmp_path / "x", Position()))


@bad
def test_metrics_keep_their_whole_rows(tmp_path, data):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + data + b'\n{"step": 2}\n')
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2]


@bad
def test_files_of_data_and_weights(tmp_path, data):
    refused(tmp_path / "vdit.json", data, lambda: load_meta(tmp_path))
    for read in (T5Config.read, WanVaeConfig.read):
        refused(tmp_path / "config.json", data, lambda read=read: read(tmp_path / "config.json"))
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path / "config.json", data, lambda: _read_config(str(tmp_path)))


@bad
def test_one_torn_state_stops_neither_a_sweep_nor_its_status(tmp_path, data):
    folder, runs = Folder(tmp_path), [{"id": name, "label": name, "varies": [], "steps": 9} for name in ("a", "b")]
    plan = {"name": "s", "config": "", "target": "local", "settings": {}, "runs": runs}
    (tmp_path / "sweep.json").write_text(json.dumps(plan))
    for name in "ab":
        folder.write_state(name, State("stopped"))
    for name in ("state.json", "heartbeat.json", "result.json", "processes/0.json"):
        path = folder.run("a") / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    first, second = statuses(folder)
    assert second.state == "stopped" and ("state.json" in first.reason or first.state == "finished")
    folder.write_state("a", State("waiting"))
    assert statuses(folder)[0].reason == ""
    refused(tmp_path / "sweep.json", data, folder.plan)


@bad
def test_a_report_leaves_out_what_it_cannot_read(tmp_path, data):
    for name in ("study.json", "runs/a/result.json", "floor.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_bytes(data + b'\n{"step": 2}\n')
    study = gather(tmp_path)
    if data != BAD["other fields"]:
        assert study.runs == () and {"study.json", "floor.json"} <= set(study.unreadable)
    assert [row["step"] for row in study.curves["a"] if "step" in row] == [2]


def test_a_folder_of_videos_is_not_to_be_removed(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(UserError) as error:
        load_meta(tmp_path)
    assert f"python -m data_pipelines.build --source={tmp_path}" in str(error.value)
    assert not {"remove", "delete"} & set(str(error.value).split())


def test_what_data_a_run_saw_is_compared_whatever_its_shape(tmp_path):
    (tmp_path / "dataset.json").write_text('{"patch": 3}')
    with pytest.raises(UserError, match="has patch="):
        check_dataset(tmp_path, "data", {"patch": [4, 8, 8]})
