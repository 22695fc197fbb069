"""Writes the terminals of the README: a pod run planned, a run killed and resumed. `python -m benchmarks.readme`."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.pages import put
from vdit.command.run import no_arguments, run_main

ROOT = Path(__file__).parents[1]
COMMAND = "python -m benchmarks.readme"

PLAN = "-m vdit.plan --config=configs/vdit_10b.py --topology=v5p:8x8x8 --config.data.rows_per_step=512"
BUILD = (
    "-m data_pipelines.build --source=physics --world=uniform --patch=2,4,4 --text_encoder=none --limit=2000"
    " --out={data}"
)
TRAIN = (
    "-m vdit.train --config=configs/gliding.py --config.data.path={data} --config.train.steps=600"
    " --config.train.checkpoint_every=100 --config.train.log_every=200 --workdir={workdir}"
)
EXPORT = "-m vdit.export --workdir={workdir} --out={out}"
KILLED_AFTER = "step 400/600"


def python(command: str, **more: object) -> str:
    """What a command of this project prints."""
    arguments = [sys.executable, *shlex.split(command)]
    done = subprocess.run(arguments, cwd=ROOT, text=True, check=True, capture_output=True, **more)  # type: ignore[call-overload]
    return done.stdout.rstrip()


def killed(command: str, after: str) -> str:
    """What a command prints until it is killed: once it has printed `after`."""
    arguments = [sys.executable, *shlex.split(command)]
    process = subprocess.Popen(arguments, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip())
        if after in line:
            process.send_signal(signal.SIGKILL)
    process.wait()
    return "\n".join([*lines, "Killed"])


def resumed() -> str:
    """A run that is killed and started again, beside one that is not."""
    with tempfile.TemporaryDirectory() as folder:
        python(BUILD.format(data=f"{folder}/data"))
        train = {
            name: TRAIN.format(data=f"{folder}/data", workdir=f"{folder}/{name}") for name in ("killed", "undisturbed")
        }
        python(train["undisturbed"])
        shown = "python -m vdit.train --config=configs/gliding.py --workdir=runs/killed"
        parts = [f"$ {shown}    # kill -9 after {KILLED_AFTER}", killed(train["killed"], KILLED_AFTER)]
        parts += [f"$ {shown}    # the same command again", python(train["killed"])]
        for name in train:
            python(EXPORT.format(workdir=f"{folder}/{name}", out=f"{folder}/weights/{name}"))
        sums = subprocess.run(
            ["sha256sum", *(f"weights/{name}/model.safetensors" for name in train)],
            cwd=folder, text=True, check=True, capture_output=True,
        ).stdout.rstrip()  # fmt: skip
        parts += ["$ sha256sum weights/*/model.safetensors    # exported; the second was never killed", sums]
        return "\n".join(parts).replace(folder, "runs")


def main(argv: list[str]) -> None:
    no_arguments(argv)
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")
    for name, text in (("resume", resumed()), ("plan", f"$ python {PLAN}\n{python(PLAN)}")):
        put("../README.md", f"{COMMAND} ({name})", f"```console\n{text}\n```")
        print(text)


if __name__ == "__main__":
    run_main(main)
