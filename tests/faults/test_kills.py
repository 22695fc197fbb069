"""A run that is killed at random moments loses nothing: what `benchmarks.faults` measures, with fewer kills."""

import dataclasses
import functools
import re
import shutil
import subprocess
import sys

import pytest
import tiny
from etils import epath

from benchmarks.kills import differing, outcome
from vdit.io.files import write_json
from vdit.training.record.metrics import read_metrics
from vdit.training.recovery.checkpoint import checkpoint_steps

KILLS = """
import ast, os, random, shutil, signal, sys
from pathlib import Path
from benchmarks.kills import Doing, fork, training
from vdit.config import Config
from vdit.config_dict import build
from vdit.training.recovery.checkpoint import checkpoint_steps

config, workdir = build(ast.literal_eval(sys.argv[1]), Config), Path(sys.argv[2])
random, log = random.Random(0), workdir.with_name("log")

class Deadly(Doing):
    phase, later = "", 0.0

    @property
    def now(self):
        return Doing.now.fget(self)

    @now.setter
    def now(self, name):
        Doing.now.fset(self, name)
        if name == self.phase or self.phase == "first save" and checkpoint_steps(workdir):
            self.phase = ""
            if not self.later:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.setitimer(signal.ITIMER_PROF, self.later)

# Whoever started the tests may have had the signal ignored or blocked.
signal.signal(signal.SIGPROF, signal.SIG_DFL)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGPROF])

phases = ["starting up", "restoring", "compiling the step", "stepping", "writing metrics"]
phases += ["handing over or awaiting a save"]
random.shuffle(phases)
before = workdir.with_name("before")
for phase in ["first save", *phases]:
    long = phase in ("starting up", "restoring", "compiling the step")
    later = random.uniform(0.001, 0.1 if long else 0.02)
    shutil.rmtree(before, ignore_errors=True)
    if workdir.exists():
        shutil.copytree(workdir, before)
    for attempt in range(4):
        doing = Deadly()
        comes = attempt < 2 or phase == "first save"
        doing.phase = phase if comes else "stepping"  # it may not come: no save had to be waited for
        doing.later = later if attempt < 3 else 0.0  # at once, as some kernels have no such timer

        def work():
            doing.now = "starting up"
            return training(config, workdir, doing)()

        _, status = os.waitpid(fork(work, log), 0)
        if os.WIFSIGNALED(status):
            break
        later /= 2  # it had ended before: once more from where it was, killed sooner
        shutil.rmtree(workdir)
        if before.exists():
            shutil.copytree(before, workdir)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGKILL), (
        f"{phase}: no attempt was killed; the last ended with {status}"
    )
    print(phase, flush=True)
"""
"""Kills a run in each phase of its life, at a random moment of it in seconds of processor time.

The kernel ends the process by a timer, as abruptly as by SIGKILL: nobody has to watch for the moment.
"""


def test_a_kill_in_any_phase_changes_nothing(tmp_path):
    config, undisturbed = tiny.long_run()
    workdir = tmp_path / "run"
    command = [sys.executable, "-c", KILLS, repr(dataclasses.asdict(config)), str(workdir)]
    done = subprocess.run(command, env=tiny.environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 7
    assert 0 < len(read_metrics(workdir)) < 60 and checkpoint_steps(workdir)
    tiny.train(config, workdir)
    tiny.assert_same_result(workdir, tiny.result(undisturbed, config), config)


@functools.cache
def finished():
    """(config, workdir, outcome) of a run that nothing happened to."""
    config, workdir = tiny.long_run()
    whole = shutil.copytree(workdir, tiny.folder() / "whole")
    write_json(epath.Path(whole / "result.json"), {"loss": 1.0})
    with tiny.two_devices():
        return config, whole, outcome(config, whole)


def lines_changed(change):
    def spoil(workdir) -> None:
        lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
        (workdir / "metrics.jsonl").write_text("".join(change(lines)))

    return spoil


def last_checkpoint_lost(workdir) -> None:
    shutil.rmtree(workdir / "checkpoints" / "60")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda workdir: None, set()),
        (lines_changed(lambda lines: [*lines, lines[-1]]), {"metrics"}),
        (lines_changed(lambda lines: lines[:4] + lines[5:]), {"metrics"}),
        (last_checkpoint_lost, {"checkpoints", "position", "params", "ema", "optimizer", "step"}),
    ],
)
def test_the_benchmark_finds_what_is_lost_or_wrong(tmp_path, spoil, found):
    config, whole, expected = finished()
    workdir = shutil.copytree(whole, tmp_path / "run")
    spoil(workdir)
    with tiny.two_devices():
        names = differing(outcome(config, workdir), expected)
    assert {re.findall(r"\w+", name)[0] for name in names} == found
