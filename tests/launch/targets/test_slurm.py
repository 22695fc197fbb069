"""SLURM with stand-ins for its commands: what is submitted, and the job script run for real."""

import json
import os
import subprocess
import sys

import pytest
import sweeping
from waiting import wait_until

from launch.sweeps import status
from launch.sweeps.expand import name_of
from launch.sweeps.grid import over, point
from launch.sweeps.settings import Slurm
from launch.sweeps.state import Folder
from launch.targets import cloud, registry, slurm
from vdit.errors import UserError

COMMANDS = {
    "sbatch": 'printf "%s\\n" "$@" >>"$STANDIN/sbatch.log"; echo 42',
    "squeue": 'cat "$STANDIN/queue"',
    "scancel": 'printf "%s\\n" "$@" >>"$STANDIN/scancel.log"',
    "scontrol": 'if [ "$1" = show ]; then printf "node-1\\nnode-2\\n"; else echo "$@" >>"$STANDIN/requeue"; fi',
    "srun": 'shift 2; export SLURM_PROCID=1; exec "$@"',
}


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    for name, body in COMMANDS.items():
        (tmp_path / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "queue").write_text("")
    monkeypatch.setenv("STANDIN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


HOSTILE = 'it\'s "here" $(touch trap) `touch trap`; x'


def test_submitted_once_followed_and_cancelled(cluster, tmp_path):
    sweep = sweeping.sweep(over("seed", 1, 2), tmp_path)
    settings = Slurm(partition="gpu", nodes=2, gpus_per_node=4, time="01:00:00", price_per_chip_hour=2.0)
    folder = Folder(tmp_path / "sweeps" / "tiny")
    first, second = (name_of(run.id) for run in sweep.runs)
    (cluster / "queue").write_text(f"other job RUNNING\n{first} RUNNING\n")
    assert slurm.start(sweep, folder, settings) == 0
    told = (cluster / "sbatch.log").read_text().splitlines()
    assert f"--job-name={second}" in told and f"--job-name={first}" not in told
    for flag in ("--nodes=2", "--gpus-per-node=4", "--signal=B:TERM@120", "--requeue", "--partition=gpu"):
        assert flag in told

    def states() -> list[str]:
        slurm.synchronise(folder, settings)
        return [row.state for row in status.statuses(folder)]

    (cluster / "queue").write_text(f"{second} RUNNING\n")
    assert states() == ["planned", "running"]
    assert status.statuses(folder)[1].cost is not None
    (cluster / "queue").write_text(f"{second} PENDING\n")
    assert states() == ["planned", "waiting"]
    assert registry.stop(folder, []) == f"cancelled: {second}" and states() == ["planned", "stopped"]
    assert f"--name={second}" in (cluster / "scancel.log").read_text()


def test_values_stay_data(cluster, tmp_path):
    sweep = sweeping.sweep(point({"data.split": HOSTILE}), tmp_path, name="it's a $(name)")
    folder = Folder(tmp_path / "sweeps" / sweep.name)
    slurm.start(sweep, folder, Slurm())
    run = folder.run(sweep.runs[0].id)
    told = json.loads((run / "run.json").read_text())
    assert f"--config.data.split={HOSTILE}" in told["arguments"] and f"--workdir={run}" in told["arguments"]
    assert (cluster / "sbatch.log").read_text().splitlines()[-1] == str(run / "run.json")
    text = slurm.describe(sweep, sweep.runs[0], folder, Slurm())
    subprocess.run(["bash", "-c", text], check=True, cwd=tmp_path)
    assert not (tmp_path / "trap").exists()


TRAINER = """
import json, os, signal, sys, time
names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
def stopped(*_):
    sys.exit(75)
signal.signal(signal.SIGTERM, stopped)
with open(sys.argv[1] + ".new", "w") as file:
    json.dump({name: os.environ[name] for name in names}, file)
os.replace(sys.argv[1] + ".new", sys.argv[1])
if sys.argv[2] == "wait":
    signal.pause()
if sys.argv[2] == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(sys.argv[2]) if sys.argv[2].isdigit() else 0)
"""


def test_the_job_saves_at_the_time_limit_and_requeues_itself(cluster, tmp_path):
    where = tmp_path / "a run"
    where.mkdir()
    (tmp_path / "stand_in_trainer.py").write_text(TRAINER)

    def job(signal_it: bool) -> int:
        arguments = [str(where / "environment"), "wait" if signal_it else "end"]
        told = {"module": "stand_in_trainer", "arguments": arguments, "environment": {}}
        (where / "run.json").write_text(json.dumps(told))
        (where / "environment").unlink(missing_ok=True)
        more = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_ID": "42", "SLURM_NNODES": "2"}
        path = f"{cloud.ROOT}:{tmp_path}"
        command = ["bash", str(slurm.SCRIPT), sys.executable, str(where / "run.json")]
        process = subprocess.Popen(command, env={**os.environ, **more, "PYTHONPATH": path})
        if signal_it:
            wait_until((where / "environment").exists, process)
            process.terminate()
        return process.wait()

    assert job(True) == 75 and (cluster / "requeue").read_text() == "requeue 42\n"
    told = json.loads((where / "environment").read_text())
    assert told == {"JAX_COORDINATOR_ADDRESS": "node-1:20042", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert job(False) == 0
    (where / "stop").touch()
    assert job(True) == 75 and (cluster / "requeue").read_text() == "requeue 42\n"  # launch.stop meant it


@pytest.mark.parametrize(("end", "status", "requeued"), [
    ("69", 69, True), ("74", 74, True), ("killed", 137, True), ("2", 2, False), ("1", 1, False), ("0", 0, False),
])  # fmt: skip
def test_the_job_requeues_itself_after_failures_that_may_pass(cluster, tmp_path, end, status, requeued):
    (tmp_path / "stand_in_trainer.py").write_text(TRAINER)
    arguments = [str(tmp_path / "environment"), end]
    told = {"module": "stand_in_trainer", "arguments": arguments, "environment": {}}
    (tmp_path / "run.json").write_text(json.dumps(told))
    more = {"SLURM_JOB_NODELIST": "node-[1-2]", "SLURM_JOB_ID": "42", "SLURM_NNODES": "2"}
    more["PYTHONPATH"] = f"{cloud.ROOT}:{tmp_path}"

    def jobs(step: int) -> list[int]:
        """How often the job is in the queue again, after each of three ends at a step."""
        (tmp_path / "heartbeat.json").write_text(json.dumps({"step": step}, indent=1))
        found = []
        for _ in range(3):
            command = ["bash", str(slurm.SCRIPT), sys.executable, str(tmp_path / "run.json")]
            assert subprocess.run(command, env={**os.environ, **more}, timeout=600).returncode == status
            path = cluster / "requeue"
            found.append(path.read_text().count("requeue 42\n") if path.exists() else 0)
        return found

    assert jobs(step=7) == ([1, 2, 2] if requeued else [0, 0, 0])  # the third at the same step is given up
    assert jobs(step=8) == ([3, 4, 4] if requeued else [0, 0, 0])


def test_no_slurm_here(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    sweep = sweeping.sweep(over("seed", 1), tmp_path)
    with pytest.raises(UserError, match="squeue is not on PATH; start the sweep on a login node"):
        slurm.start(sweep, Folder(tmp_path / "sweeps"), Slurm())
