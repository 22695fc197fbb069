"""A signal while sampling, evaluating, or running a study or experiment: one line, status 75, nothing half written."""

import os
import signal
import subprocess

import cli
import pytest
import tiny
from test_sample_cli import Words
from waiting import wait_until

from vdit.command.exit_status import PREEMPTED
from vdit.command.stopping import NAMES
from vdit.evaluation import validation
from vdit.generation.generator import Generator
from vdit.io import video
from vdit.io.files import read_json
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.training.record import metrics
from vdit.training.recovery.checkpoint import checkpoint_steps

EXPERIMENT = """
import tiny
from launch.experiments.spec import Report
from small_experiment import Arm, small
from vdit.config_dict import to_dict

def get_config():
    base = to_dict(tiny.tiny_config(checkpoint_every=1000))
    return small(base=base, arms=[Arm("all", {{}}, 1e9)], compare=[], figures=(), report={report})
"""

SIGNALS = pytest.mark.parametrize("number", NAMES)


def first_a_signal(function, number: int):
    """The function, with a signal right before it works."""

    def work(*args, **kwargs):
        signal.raise_signal(number)
        return function(*args, **kwargs)

    return work


def stopped(done: cli.Finished, number: int, before: str = "") -> None:
    assert (done.status, done.err) == (PREEMPTED, f"{before}stopped by {NAMES[number]}\n")


@pytest.mark.parametrize(
    ("owner", "name", "number"),
    [
        (Generator, "_denoise", signal.SIGTERM),
        (Generator, "_denoise", signal.SIGINT),
        (video.Mp4Writer, "add", signal.SIGTERM),
        (video.Mp4Writer, "add", signal.SIGHUP),
    ],
)
def test_sampling_leaves_no_half_of_a_video(tmp_path, capfd, monkeypatch, owner, name, number):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    monkeypatch.setattr(owner, name, first_a_signal(getattr(owner, name), number))
    flags = ("--steps=2", "--size=16x8", "--frames=5", f"--out={tmp_path / 'x.mp4'}")
    stopped(cli.runner(capfd)("vdit.sample", f"--workdir={tiny.long_run()[1]}", *flags), number)
    assert not list(tmp_path.iterdir())


@SIGNALS
def test_evaluation_prints_no_half_of_a_table(capfd, monkeypatch, number):
    monkeypatch.setattr(validation, "split_losses", first_a_signal(validation.split_losses, number))
    done = cli.runner(capfd)("vdit.evaluate", f"--workdir={tiny.long_run()[1]}", "--json")
    stopped(done, number, "validation loss: 0/8 examples, compiling (usually a minute)\n")
    assert not done.out


@pytest.mark.parametrize(
    ("number", "report", "command"),
    [
        (signal.SIGTERM, "Report()", ("launch.study", "--config={file}")),
        (signal.SIGINT, "None", ("launch.experiment", "--name={file}", "--docs={out}/docs", "--text_encoder=minilm")),
    ],
)
def test_a_study_or_experiment_saves_its_run(tmp_path, capfd, monkeypatch, number, report, command):
    """While it trains; of a request in a run's last step tests/launch/experiments/runs/test_runner.py tells."""
    (tmp_path / "made.py").write_text(EXPERIMENT.format(report=report))
    data = tmp_path / "out" / "data"
    data.mkdir(parents=True)
    (data / "tiny").symlink_to(tiny.dataset())
    (data / "tiny.txt").write_text("data_pipelines.build --source=none minilm")
    write = metrics.MetricWriter.write

    def then_a_signal(self, row):
        write(self, row)
        if row.get("step") == 2:
            signal.raise_signal(number)

    monkeypatch.setattr(metrics.MetricWriter, "write", then_a_signal)
    module, *flags = (word.format(file=tmp_path / "made.py", out=tmp_path / "out") for word in command)
    done = cli.runner(capfd)(module, *flags, f"--out={tmp_path / 'out'}")
    (run,) = (tmp_path / "out" / "runs").iterdir()
    (step,) = checkpoint_steps(run)
    assert done.status == PREEMPTED
    assert done.err == f"stopped as asked, after step {step}; the same command resumes from there\n"
    assert read_json(run / "heartbeat.json")["state"] == "preempted" and not (run / "result.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_build_keeps_the_jobs_that_are_done(tmp_path, number):
    """As from a terminal, which signals all processes of a command."""
    flags = ("--source=physics", "--limit=2000", "--text_encoder=none", "--workers=2", f"--out={tmp_path / 'data'}")
    command = tiny.command("data_pipelines.build", *flags)
    build = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_until(lambda: list(tmp_path.glob("data.partial/jobs/*.npz")), build)
        os.killpg(build.pid, number)
        _, err = build.communicate()
    finally:
        build.kill()
    assert build.returncode == PREEMPTED and err.splitlines()[-1] == f"stopped by {NAMES[number]}"
    assert "Traceback" not in err and not (tmp_path / "data").exists()
    assert list(tmp_path.glob("data.partial/jobs/*.npz"))
