"""Making the data sets of an experiment."""

import os
import signal
import subprocess
import sys

import pytest
import tiny

from launch.experiments.runs import data_sets
from launch.experiments.runs.data_sets import DataSets
from vdit.command.exit_status import PREEMPTED
from vdit.command.stopping import Stopped
from vdit.errors import UserError


def test_a_build_that_is_stopped_leaves_no_process():
    child = [sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"]
    script = f"from launch.experiments.runs.data_sets import run_command; print(run_command({child!r}))"
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=tiny.environment())
    pid = int(parent.stdout.readline())
    parent.terminate()
    assert parent.communicate(timeout=30)[0] == f"{-signal.SIGTERM}\n"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_data_set_is_made_once_and_after_those_it_is_made_from(tmp_path, monkeypatch):
    made = []

    def build(command):
        (where,) = (part.removeprefix("--out=") for part in command if part.startswith("--out="))
        made.append((command[2], where.rsplit("/", 1)[-1]))
        (tmp_path / "data" / where / "vdit.json").parent.mkdir()
        (tmp_path / "data" / where / "vdit.json").write_text("{}")
        return 0

    monkeypatch.setattr(data_sets, "run_command", build)
    commands = {
        "stills": ("data_pipelines.derive", "--of={videos}", "--stills"),
        "videos": ("data_pipelines.build", "--source=physics"),
    }
    sets = DataSets(tmp_path / "data", commands, "minilm")
    assert not sets.is_made("{stills},{videos}")
    assert sets.fill_in("{stills},{videos}") == f"{sets.paths['stills']},{sets.paths['videos']}"
    assert made == [("data_pipelines.build", "videos"), ("data_pipelines.derive", "stills")]
    assert sets.is_made("{stills},{videos}") and sets.path("stills") == sets.paths["stills"] and len(made) == 2
    assert sets.command("videos")[-2:] == ["--source=physics", "--text_encoder=minilm"]
    assert f"--of={sets.paths['videos']}" in sets.command("stills")
    with pytest.raises(UserError, match="was not made by data_pipelines.build --source=film minilm"):
        DataSets(tmp_path / "data", {"videos": ("data_pipelines.build", "--source=film")}, "minilm").path("videos")
    monkeypatch.setattr(data_sets, "run_command", lambda command: 2)
    with pytest.raises(UserError, match="the data set other could not be made: .* ended with 2"):
        DataSets(tmp_path / "data", {"other": ("data_pipelines.build",)}, "minilm").path("other")
    for status in (PREEMPTED, -signal.SIGTERM):
        monkeypatch.setattr(data_sets, "run_command", lambda command, status=status: status)
        with pytest.raises(Stopped, match="stopped while the data set other was being made"):
            DataSets(tmp_path / "data", {"other": ("data_pipelines.build",)}, "minilm").path("other")
