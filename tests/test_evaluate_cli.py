import json
import shutil

import cli
import numpy as np
import pytest
import tiny

from vdit.models.features import efficientnet, i3d, inception
from vdit.training.record.metrics import read_metrics


@pytest.fixture
def run(capfd):
    return cli.runner(capfd)


def test_json(run):
    _, workdir = tiny.long_run()
    done = run("vdit.evaluate", f"--workdir={workdir}", "--json")
    assert done.status == 0, done.err
    values = json.loads(done.out)
    assert done.err.startswith("validation loss: 0/") and "examples, compiling (usually a minute)" in done.err
    assert values["step"] == 60
    assert {"step": 60, **read_metrics(workdir)[-1]["validation"]} == values  # the run's own last evaluation


def test_a_table_of_an_earlier_step(run):
    _, workdir = tiny.long_run()
    done = run("vdit.evaluate", f"--workdir={workdir}", "--step=45")
    assert done.status == 0, done.err
    rows = dict(line.split(maxsplit=1) for line in done.out.splitlines() if len(line.split()) > 1)
    assert rows["step"] == "45"
    assert float(rows["loss"]) > 0 and np.isfinite(float(rows["loss"]))
    assert "by_time_quantile" in done.out


def test_data_that_has_moved(run, tmp_path):
    config, workdir = tiny.long_run()
    moved = shutil.copytree(config.data.path, tmp_path / "moved")
    values = json.loads(run("vdit.evaluate", f"--workdir={workdir}", f"--data={moved}", "--json").out)
    assert values["loss"] == read_metrics(workdir)[-1]["validation"]["loss"]


def test_likeness_and_distances_of_generated_clips(run, monkeypatch):
    """On clips without known motion, with features that cost nothing; physics measures are left out."""
    features = lambda frames: frames.reshape(len(frames), -1)[:, :6].astype(np.float32) / 255  # noqa: E731
    monkeypatch.setattr(efficientnet, "load_features", lambda: features)
    _, workdir = tiny.long_run()
    done = run(
        "vdit.evaluate",
        f"--workdir={workdir}",
        "--measures=velocity,adherence,likeness,distance",
        "--clips=4",
        "--json",
    )
    assert done.status == 0, done.err
    values = json.loads(done.out)
    assert set(values) == {"step", "likeness", "distance"}
    likeness, distance = values["likeness"], values["distance"]
    assert all(likeness[mode]["given_error"] == 0 for mode in ("first_frame", "two_groups", "last_frame", "first_last"))
    low, high = likeness["first_frame"]["psnr"]["interval"]
    assert 0 < low <= likeness["first_frame"]["psnr"]["value"] <= high < 100
    for kind in ("kernel", "frechet"):
        assert np.isfinite([distance[which][kind]["value"] for which in ("generated", "floor")]).all()
    assert distance["features"].startswith("EfficientNet-Lite0 ")
    assert distance["protocol"].items() >= {
        "split": "val", "clips": 4, "frame_interval": 4, "seed": 0, "codec": "none", "steps": 20
    }.items()  # fmt: skip


def test_the_users_own_weights_give_fid_and_fvd(run, monkeypatch):
    of_frames = lambda frames: frames.reshape(len(frames), -1)[:, :6].astype(np.float32) / 255  # noqa: E731
    of_video = lambda video: of_frames(video[:1])  # noqa: E731
    monkeypatch.setattr(inception, "load_features", lambda path: (of_frames, f"Inception {path}"))
    monkeypatch.setattr(i3d, "load_features", lambda path: (of_video, f"I3D {path}"))
    _, workdir = tiny.long_run()
    flags = ["--measures=loss", "--inception=a.pth", "--i3d=b.pth", "--clips=4", "--json"]
    done = run("vdit.evaluate", f"--workdir={workdir}", *flags)
    assert done.status == 0, done.err
    values = json.loads(done.out)
    for name, kernel, frechet, features in (
        ("inception", "kid", "fid", "Inception a.pth"),
        ("i3d", "kvd", "fvd", "I3D b.pth"),
    ):
        assert values[name]["features"] == features
        for which in ("generated", "floor"):
            assert set(values[name][which]) == {kernel, frechet}
            assert np.isfinite(values[name][which][frechet]["value"])
    assert [values[name]["protocol"]["frame_interval"] for name in ("inception", "i3d")] == [4, 1]
    assert "distance" not in values


def test_mistakes(run, tmp_path):
    _, workdir = tiny.long_run()
    other = tiny.write_dataset(tmp_path / "other", 12, text_encoder={"name": "none", "width": 6, "hash": ""})
    for arguments, message in (
        ([], "--workdir is needed, the folder of a run: python -m vdit.evaluate"),
        (
            [f"--workdir={tmp_path / 'none'}"],
            f"{tmp_path / 'none'}/config.json is missing; is this the workdir of a run?",
        ),
        ([f"--workdir={workdir}", "--step=44"], "no checkpoint of step 44 in"),
        ([f"--workdir={workdir}", "--data=/nowhere"], "data set /nowhere does not exist"),
        ([f"--workdir={workdir}", f"--data={other}"], f"{other} has text_encoder="),
        ([f"--workdir={workdir}", "last"], "'last' is not a flag"),
        (
            [f"--workdir={workdir}", "--measures=loss,beauty"],
            "--measures=beauty is not one of loss, velocity, adherence,",
        ),
        ([f"--workdir={workdir}", "--inception=no.pth"], "no.pth is not a readable .pth state dict"),
        ([f"--workdir={workdir}", "--i3d=no.safetensors"], "no.safetensors does not exist"),
    ):
        assert message in run("vdit.evaluate", *arguments).error


def test_a_run_without_checkpoint(run, tmp_path):
    _, workdir = tiny.long_run()
    empty = shutil.copytree(workdir, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    assert f"{empty} has no checkpoint yet; train it with" in run("vdit.evaluate", f"--workdir={empty}").error


def test_a_damaged_checkpoint(run, tmp_path):
    _, workdir = tiny.long_run()
    copy = shutil.copytree(workdir, tmp_path / "run")
    files = [path for path in (copy / "checkpoints" / "60").rglob("*") if path.is_file()]
    max(files, key=lambda path: path.stat().st_size).write_bytes(b"")
    message = f"checkpoint {copy}/checkpoints/60 cannot be restored"
    assert message in run("vdit.evaluate", f"--workdir={copy}", "--step=60").error
    done = run("vdit.evaluate", f"--workdir={copy}", "--json")
    assert json.loads(done.out)["step"] == 45 and message in done.err, "the one before it is taken, and that is told"
