import subprocess

import cli
import pytest
import tiny

from vdit.training.record.metrics import read_metrics
from vdit.training.record.workdir import read_config


@pytest.fixture
def run(capfd):
    return cli.runner(capfd)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return tiny.write_config(tmp_path_factory.mktemp("config") / "config.py", tiny.tiny_config(steps=2))


def test_trains_with_overrides(run, config, tmp_path):
    arguments = ("--config.train.steps=3", "--config.train.keep_steps=1,2", "--config.optimizer.warmup=5")
    done = run("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert done.status == 0, done.err
    assert "step 3/3 train loss" in done.out and done.out.splitlines()[-1].startswith(f"{tmp_path / 'run'}: step 3")
    found = read_config(tmp_path / "run")
    assert (found.train.steps, found.train.keep_steps, found.optimizer.warmup) == (3, (1, 2), 5)
    assert read_metrics(tmp_path / "run")[-1]["step"] == 3


def test_fields_that_the_file_leaves_out_can_be_set(run, tmp_path):
    file = tmp_path / "short.py"
    file.write_text("import ml_collections\n\n\ndef get_config():\n    return ml_collections.ConfigDict({'seed': 3})\n")
    flags = (f"--config={file}", f"--workdir={tmp_path / 'run'}", "--config.data.path=/nowhere", "--config.mesh.fsdp=2")
    mistake = run("vdit.train", *flags)
    assert mistake.error.startswith("data set /nowhere does not exist")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.widht=3"], "unknown config field model.widht; did you mean model.width?"),
        (["--config.train.log_every=often"], "--config.train.log_every=often"),
        (["--config.train.log_every=0"], "train.log_every=0 must be at least 1"),
        (["--config.seed.x=3"], "a --config flag names a field that does not exist"),
        (["--config.model=3"], "--config.model=3"),
        (["--config.model.width=20"], "model.width=20 is not a multiple of model.head_width=8"),
        (["--config.data.path=/nowhere"], "data set /nowhere does not exist; make it with"),
        (["--config.data.rows_per_step=1000"], "fewer than one step; lower data.rows_per_step=1000"),
        (["--config.data.rows_per_step=3"], "data.rows_per_step=3 is not a multiple of the 2 row shards"),
        (["--config.train.branch_from=/nowhere"], "no checkpoint of step 2 in /nowhere/checkpoints"),
        (["--flag=3"], "Unknown command line flag 'flag'"),
        (["extra"], "'extra' is not a flag; write --name=value"),
    ],
)
def test_mistakes(run, config, tmp_path, arguments, message):
    mistake = run("vdit.train", f"--config={config}", f"--workdir={tmp_path / 'run'}", *arguments)
    assert message in mistake.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is not a file; give one such as configs/physics.py"),
        ("x = ", "cannot be loaded: SyntaxError"),
        ("def get_config():\n    return 1 / 0\n", "cannot be loaded: ZeroDivisionError: division by zero"),
        ("def get_config():\n    return 5\n", "get_config() returns int, not a ConfigDict"),
    ],
)
def test_a_config_file_that_is_none(run, tmp_path, content, message):
    file = tmp_path / "bad.py"
    if content:
        file.write_text(content)
    error = run("vdit.train", f"--config={file}", f"--workdir={tmp_path / 'run'}").error
    assert error.startswith(f"--config={file}") and message in error


def test_both_flags_are_needed(run, config):
    for arguments, workdir in (([], "runs/physics"), ([f"--config={config}"], "runs/physics"), (["--workdir=W"], "W")):
        assert run("vdit.train", *arguments).error == (
            "--config and --workdir are both needed: "
            f"python -m vdit.train --config=configs/physics.py --workdir={workdir}"
        )


def test_the_workdir_of_another_run(run, config, tmp_path):
    workdir = tmp_path / "run"
    assert run("vdit.train", f"--config={config}", f"--workdir={workdir}", "--config.train.steps=1").status == 0
    before = {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()}
    mistake = run("vdit.train", f"--config={config}", f"--workdir={workdir}", "--config.seed=6")
    assert mistake.error == f"{workdir} holds a run with seed=5, not 6; take another --workdir"
    assert {path: path.read_bytes() for path in workdir.rglob("*") if path.is_file()} == before
    longer = run("vdit.train", f"--config={config}", f"--workdir={workdir}", "--config.train.log_every=2")
    assert longer.status == 0 and "step 2/2" in longer.out


def test_a_process_of_its_own(config, tmp_path):
    flags = (f"--config={config}", f"--workdir={tmp_path / 'run'}", "--config.model.widht=3")
    command = tiny.command("vdit.train", *flags)
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert done.stderr == "error: unknown config field model.widht; did you mean model.width?\n"
