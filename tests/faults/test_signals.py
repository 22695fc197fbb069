"""SIGTERM while sampling, evaluating, or running a study: one line, status 75, nothing half written."""

import signal

import cli
import pytest
import tiny
from test_sample_cli import Words

from vdit.command.exit_status import PREEMPTED
from vdit.evaluation import validation
from vdit.generation.generator import Generator
from vdit.io import video
from vdit.io.files import read_json
from vdit.models.text.text_encoders import TEXT_ENCODERS
from vdit.training.record import metrics
from vdit.training.recovery.checkpoint import checkpoint_steps

STUDY = """
import tiny
from launch.experiments.spec import Report
from small_experiment import Arm, small
from vdit.config_dict import to_dict

def get_config():
    base = to_dict(tiny.tiny_config(checkpoint_every=1000))
    return small(base=base, arms=[Arm("all", {}, 1e9)], compare=[], figures=(), report=Report())
"""


def first_a_signal(function):
    """The function, with a signal right before it works."""

    def work(*args, **kwargs):
        signal.raise_signal(signal.SIGTERM)
        return function(*args, **kwargs)

    return work


def stopped(done: cli.Finished) -> None:
    assert (done.status, done.err) == (PREEMPTED, "stopped by SIGTERM\n")


@pytest.mark.parametrize(("owner", "name"), [(Generator, "_denoise"), (video.Mp4Writer, "add")])
def test_sampling_leaves_no_half_of_a_video(tmp_path, capfd, monkeypatch, owner, name):
    monkeypatch.setitem(TEXT_ENCODERS, "random", Words)
    monkeypatch.setattr(owner, name, first_a_signal(getattr(owner, name)))
    flags = ("--steps=2", "--size=16x8", "--frames=5", f"--out={tmp_path / 'x.mp4'}")
    stopped(cli.runner(capfd)("vdit.sample", f"--workdir={tiny.long_run()[1]}", *flags))
    assert not list(tmp_path.iterdir())


def test_evaluation_prints_no_half_of_a_table(capfd, monkeypatch):
    monkeypatch.setattr(validation, "split_losses", first_a_signal(validation.split_losses))
    done = cli.runner(capfd)("vdit.evaluate", f"--workdir={tiny.long_run()[1]}", "--json")
    stopped(done)
    assert not done.out


def test_a_study_saves_its_run_and_resumes(tmp_path, capfd, monkeypatch):
    """While it trains; of a request in a run's last step tests/launch/experiments/test_runner.py tells."""
    (tmp_path / "study.py").write_text(STUDY)
    data = tmp_path / "out" / "data"
    data.mkdir(parents=True)
    (data / "tiny").symlink_to(tiny.dataset())
    (data / "tiny.txt").write_text("data_pipelines.build --source=none minilm")
    write = metrics.MetricWriter.write

    def then_a_signal(self, row):
        write(self, row)
        if row.get("step") == 2:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(metrics.MetricWriter, "write", then_a_signal)
    done = cli.runner(capfd)("launch.study", f"--config={tmp_path / 'study.py'}", f"--out={tmp_path / 'out'}")
    (run,) = (tmp_path / "out" / "runs").iterdir()
    (step,) = checkpoint_steps(run)
    assert done.status == PREEMPTED
    assert done.err == f"stopped as asked, after step {step}; the same command resumes from there\n"
    assert read_json(run / "heartbeat.json")["state"] == "preempted" and not (run / "result.json").exists()
