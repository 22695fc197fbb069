"""Really full, read-only and closed file systems: every command ends in one line with its documented status.

A file system of its own needs the rights of root and Linux. Without them the same system calls are made to fail in the
process instead (`failing`), which says so in the name of the test.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

ROOT = Path(__file__).parents[2]
CAN_MOUNT = os.geteuid() == 0 and sys.platform == "linux" and (
    subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
)  # fmt: skip
HOW = "a real file system" if CAN_MOUNT else "failing system calls"

FAILING = """
import os, sys
place, number, left = {place!r}, {number}, {left}

def fail(path):
    raise OSError(number, os.strerror(number), os.fspath(path))

def audit(event, args):
    global left
    if event == "open" and isinstance(args[0], str) and args[0].startswith(place):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            left -= 1
            if left < 0:
                fail(args[0])
    if event == "os.mkdir" and os.fspath(args[0]).startswith(place):
        left -= 1
        if left < 0:
            fail(args[0])

sys.addaudithook(audit)
"""
"""Lets `left` files and folders be made below `place`."""

DISKS = {
    "full": ("size=100k", 28, 12),
    "full at once": ("size=4k", 28, 0),
    "without inodes": ("nr_inodes=12", 28, 10),
    "read-only": ("ro", 30, 0),
}
"""Options of tmpfs, and what they amount to where none can be mounted: a failing call's number, and calls before it."""


@contextlib.contextmanager
def prepared(disk: str, place: Path) -> Iterator[list[str]]:
    """What to put before a command, so that the disk below `place` is such a one."""
    options, number, left = DISKS[disk]
    place.mkdir()
    if CAN_MOUNT:  # in a name space of its own, which ends with the command
        yield ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o {options} tmpfs "{place}" && exec "$@"', "sh"]
    else:
        site = place.with_name("site")
        site.mkdir()
        (site / "sitecustomize.py").write_text(FAILING.format(place=str(place), number=number, left=left))
        yield ["env", f"PYTHONPATH={site}"]


def end(before: list[str], module: str, *arguments: str) -> tuple[int, str]:
    """(status, stderr) of a command."""
    command = [*before, sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=tiny.environment(), cwd=ROOT)
    return done.returncode, done.stderr


def nightly(value: str) -> Any:
    return pytest.param(value, marks=pytest.mark.nightly)


def one_line(status: int, err: str) -> None:
    assert status == 2, (status, err)
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert any(word in err for word in ("make room", "give permission", "another place", "another --out")), err


@pytest.mark.parametrize("how", [HOW])
@pytest.mark.parametrize(
    "disk", [nightly(disk) if disk in ("full at once", "without inodes") else disk for disk in DISKS]
)
def test_training_on_such_a_disk_is_one_line(tmp_path, disk, how):
    config = tiny.tiny_config(steps=40, checkpoint_every=2, evaluate_every=-1)
    path = tiny.write_config(tmp_path / "c.py", config)
    with prepared(disk, tmp_path / "disk") as before:
        one_line(*end(before, "vdit.train", f"--config={path}", f"--workdir={tmp_path / 'disk' / 'run'}"))


WRITERS = {
    "export": ("vdit.export", "--workdir={run}", "--out={disk}/export"),
    "build": ("data_pipelines.build", "--source=physics", "--limit=40", "--text_encoder=none", "--out={disk}/data"),
    "derive": ("data_pipelines.derive", "--of={data}", "--stills", "--out={disk}/stills"),
    "sweep": ("launch.sweep", "--sweep=configs/sweeps/physics.py", "--to=local", "--out={disk}/sweeps"),
    "report": ("vdit.scaling.report", "{table}", "--bootstraps=0", "--out={disk}/report.html"),
    "sample": ("tests.sample_tiny", "--workdir={run}", "--steps=2", "--size=16x8", "--frames=5", "--out={disk}/x.mp4"),
}
TABLE = "params,tokens,flops,loss\n" + "".join(
    f"{n},{d},{6 * n * d},{0.5 + 20 / n**0.4 + 30 / d**0.4}\n" for n in (1000, 2000, 4000, 8000) for d in (10**6, 10**7)
)


@pytest.mark.parametrize("how", [HOW])
@pytest.mark.parametrize("disk", ["full at once", "read-only"])
@pytest.mark.parametrize("writer", [nightly(name) if name in ("export", "sample") else name for name in WRITERS])
def test_what_writes_to_such_a_disk_is_one_line(tmp_path, writer, disk, how):
    _, run = tiny.long_run()
    (tmp_path / "runs.csv").write_text(TABLE)
    places = {"run": run, "data": tiny.dataset(), "disk": tmp_path / "disk", "table": tmp_path / "runs.csv"}
    with prepared(disk, tmp_path / "disk") as before:
        module, *arguments = WRITERS[writer]
        one_line(*end(before, module, *(each.format(**places) for each in arguments)))


@pytest.mark.nightly
def test_an_evaluation_whose_output_lies_on_a_full_disk_is_one_line():
    command = tiny.command("vdit.evaluate", f"--workdir={tiny.long_run()[1]}", "--measures=loss")
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=tiny.environment(), cwd=ROOT)
    one_line(done.returncode, done.stderr)
