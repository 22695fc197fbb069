"""The startup script in a temporary root, with stand-ins for gcloud, pip and the metadata server; all else is real."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import sweeping
import tiny
from waiting import wait_until

from launch.sweeps.expand import name_of
from launch.sweeps.grid import over
from launch.sweeps.settings import QueuedResources
from launch.targets import cloud, queued_resources
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import checkpoint_steps

MACHINE = Path(queued_resources.MACHINE)

GCLOUD = """#!/usr/bin/env bash
# Buckets are folders; everything asked is written down.
printf '%s\\n' "$*" >>"$STANDIN/gcloud.log"
case "$1 $2" in
  "storage cp") mkdir -p "$(dirname "$4")" && cp "$3" "$4" ;;
  "storage rsync") mkdir -p "$5" && cp -r "$4/." "$5" ;;
  "storage ls") ls -d "$3"* ;;
esac
"""

PYTHON = """#!/usr/bin/env bash
# Makes virtual environments whose pip installs nothing and whose Python is the one of the tests.
if [[ "$1" == -m && "$2" == venv ]]; then
  mkdir -p "$3/bin"
  cp "$0" "$3/bin/python"
elif [[ "$1" == -m && "$2" == pip ]]; then
  printf '%s\\n' "$*" >>"$STANDIN/pip.log"
  [[ -e "$STANDIN/no-network" ]] && rm "$STANDIN/no-network" && exit 1
  exit 0
else
  exec "$REAL_PYTHON" "$@"
fi
"""


HOSTNAME = """#!/bin/sh
if [ "$1" = -I ]; then echo 127.0.0.1 ::1; else echo host-{}; fi
"""


TRAINER = """
import signal, sys
from pathlib import Path
workdir = Path(next(a for a in sys.argv if a.startswith("--workdir=")).split("=", 1)[1])

def stop(*_):
    print("stopped as asked, after step 20", flush=True)
    (workdir / "checkpoints" / "20").mkdir(parents=True)
    sys.exit(75)

signal.signal(signal.SIGTERM, stop)
workdir.mkdir(parents=True, exist_ok=True)
if not (workdir / "checkpoints" / "20").exists():
    (workdir / "metrics.jsonl").write_text('{"step": 10}\\n{"step": 20}\\n')
    while True:
        signal.pause()
with (workdir / "metrics.jsonl").open("a") as file:
    file.writelines(f'{{"step": {step}}}\\n' for step in range(30, 310, 10))
(workdir / "result.json").write_text('{"steps": 300}')
"""
"""Writes what the real trainer does, and waits for the signal at step 20."""


class Machine:
    """A TPU host, seen from outside; the hosts of a slice share the bucket."""

    def __init__(self, root: Path, steps: int, hosts: int = 1, number: int = 0):
        self.root, self.standin = root / f"opt{number}" / "it's a $(root)", root / f"standin{number}"
        self.bucket = root / "bucket"
        self.standin.mkdir()
        for name, text in (("gcloud", GCLOUD), ("python3.13", PYTHON), ("hostname", HOSTNAME.format(number))):
            (self.standin / name).write_text(text)
            (self.standin / name).chmod(0o755)
        made = sweeping.sweep(over("seed", 5), root, train={"steps": steps, "checkpoint_every": 1000, "log_every": 10})
        self.run = made.runs[0]
        settings = QueuedResources(project="p", zone="z", topology="v5e:2x2", bucket=str(self.bucket))
        staged = cloud.data_sets(self.run, settings)
        shutil.copytree(tiny.dataset(), staged[0].source, dirs_exist_ok=True)
        code, head = cloud.git("rev-parse", "--show-toplevel"), cloud.git("rev-parse", "HEAD")
        self.attributes = queued_resources.metadata(made, self.run, settings, head, code, "1-now")
        self.attributes |= {"vdit-hosts": str(hosts), "agent-worker-number": str(number)}
        self.devices = 2 // hosts
        self.folder = Path(self.attributes["vdit-folder"])
        self.metadata = _metadata_server(self.attributes)

    def environment(self) -> dict[str, str]:
        host = f"127.0.0.1:{self.metadata.server_address[1]}"
        path = f"{self.standin}:{os.environ['PATH']}"
        more = {"VDIT_ROOT": str(self.root), "GCE_METADATA_HOST": host, "STANDIN": str(self.standin), "PATH": path}
        more["PYTHONPATH"] = str(self.standin)
        return tiny.environment(self.devices, REAL_PYTHON=sys.executable, VDIT_PAUSE="0.1", **more)

    def boot(self) -> subprocess.Popen:
        process = subprocess.Popen(["bash", str(MACHINE / "startup.sh")], env=self.environment())
        threading.Thread(target=process.wait, daemon=True).start()  # one that has ended must not stay as a zombie
        return process

    def log(self) -> str:
        return (self.root / "log").read_text() if (self.root / "log").exists() else ""

    def asked(self, what: str) -> list[str]:
        path = self.standin / "gcloud.log"
        return [line for line in path.read_text().splitlines() if what in line] if path.exists() else []

    def step(self) -> int:
        """The newest step that is written down."""
        return max((row["step"] for row in read_metrics(self.folder)), default=0)

    def use_stand_in(self) -> None:
        """From now on runs are made by `TRAINER`."""
        (self.standin / "stand_in_trainer.py").write_text(TRAINER)
        told = json.loads(self.attributes["vdit-run"])
        self.attributes["vdit-run"] = json.dumps({**told, "module": "stand_in_trainer"})


def _metadata_server(attributes: dict[str, str]) -> http.server.ThreadingHTTPServer:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rsplit("/", 1)[-1]
            known = self.headers["Metadata-Flavor"] == "Google" and name in attributes
            self.send_response(200 if known else 404)
            self.end_headers()
            self.wfile.write(attributes.get(name, "").encode())

        def log_message(self, *_) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


@pytest.fixture
def machine(tmp_path):
    (made,) = _machines(tmp_path, steps=300)
    yield made
    _close([made])


def _machines(root: Path, steps: int, hosts: int = 1) -> list[Machine]:
    if not (cloud.ROOT / ".git").exists():
        pytest.skip("this is not a git checkout: the startup script is NOT tested")
    return [Machine(root, steps, hosts, number) for number in range(hosts)]


def _close(machines: list[Machine]) -> None:
    for machine in machines:
        machine.metadata.shutdown()
        machine.metadata.server_close()


def shut_down(machine: Machine) -> None:
    """As when the cloud takes it away."""
    subprocess.run(["bash", str(MACHINE / "shutdown.sh")], env=machine.environment(), timeout=600, check=True)


def assert_finished(machine: Machine, steps: int) -> None:
    rows = read_metrics(machine.folder)
    assert [row["step"] for row in rows if "validation" not in row] == list(range(10, steps + 1, 10))
    assert json.loads((machine.folder / "result.json").read_text())["steps"] == steps
    assert (machine.folder / "exit").read_text().split() == ["1-now", "0"]
    name = name_of(machine.run.id)
    (deleted,) = machine.asked("delete")
    assert deleted == f"compute tpus queued-resources delete {name} --zone=z --force --async --quiet"
    assert not (machine.root / "pid").exists()


@pytest.mark.parametrize("trainer", ["stand-in", pytest.param("real", marks=pytest.mark.nightly)])
def test_clones_installs_trains_is_preempted_and_goes_on(machine, trainer):
    if trainer == "stand-in":
        machine.use_stand_in()
    (machine.standin / "no-network").touch()  # pip fails once
    first = machine.boot()
    try:
        wait_until(lambda: machine.step() >= 20, first, machine.log)
        shut_down(machine)
        assert first.wait() == 75, machine.log()
    finally:
        first.kill()
    assert "try 1 of 5 failed" in machine.log() and "stopped as asked, after step" in machine.log()
    (saved,) = checkpoint_steps(machine.folder)
    assert 20 <= saved < 300 and not machine.asked("delete") and not (machine.folder / "exit").exists()
    assert (machine.folder / "logs" / "host-0.log").read_text().endswith("ends with status 75\n")
    installs = (machine.standin / "pip.log").read_text().splitlines()
    assert len(installs) == 2 and f"--editable {machine.root}/src[tpu,cloud]" in installs[1]
    assert cloud.git("rev-parse", "HEAD") in (machine.root / "installed").read_text()
    again = machine.boot()
    try:
        assert again.wait() == 0, machine.log()
    finally:
        again.kill()
    assert len((machine.standin / "pip.log").read_text().splitlines()) == 2  # installed already
    assert_finished(machine, 300)


@pytest.mark.nightly
def test_two_hosts_wait_for_each_other_and_share_a_run(tmp_path):
    """The signal reaches one of them only: both stop after the same step, and both go on."""
    hosts = _machines(tmp_path, steps=600, hosts=2)
    first, second = hosts
    processes = [first.boot()]
    try:
        wait_until((first.folder / "workers" / "1-now" / "0").exists, processes[0], first.log)
        time.sleep(1)
        assert "step" not in first.log()
        processes.append(second.boot())
        wait_until(lambda: first.step() >= 20, processes[0], first.log)
        shut_down(second)
        assert [process.wait() for process in processes] == [75, 75], first.log() + second.log()
        (saved,) = checkpoint_steps(first.folder)
        assert 20 <= saved < 600 and not first.asked("delete")
        processes = [host.boot() for host in hosts]
        assert [process.wait() for process in processes] == [0, 0], first.log() + second.log()
    finally:
        for process in processes:
            process.kill()
        _close(hosts)
    assert_finished(first, 600)
    assert not second.asked("delete")


def test_a_mistake_ends_the_machine_with_its_reason(machine):
    told = json.loads(machine.attributes["vdit-run"])
    told["arguments"].append("--config.model.widht=3")
    machine.attributes["vdit-run"] = json.dumps(told)
    process = machine.boot()
    assert process.wait() == 2, machine.log()
    said = (machine.folder / "exit").read_text()
    assert said.startswith("1-now 2 error: unknown config field model.widht; did you mean model.width?")
    assert len(machine.asked("delete")) == 1 and machine.log().count("unknown config field") == 1


def test_the_scripts_pass_shellcheck():
    scripts = [str(path) for path in MACHINE.iterdir()]
    assert len(scripts) == 3
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
