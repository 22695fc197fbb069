"""The builder: complete or absent, the same bytes every time, every input accounted for."""

import csv
import dataclasses
import pathlib
import subprocess
import sys

import fake_source
import numpy as np
import pytest
from fake_source import FakeEncoder

from data_pipelines.build import build
from data_pipelines.building import assemble, jobs
from data_pipelines.building.build_args import BuildArgs, make_args, parse_patch, parse_shard
from data_pipelines.media.clip import Options, stable_id
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.physics import clips
from data_pipelines.sources.physics.physics_source import physics_counts
from data_pipelines.sources.registry import SOURCES
from vdit.errors import UserError
from vdit.patches import Patch


@pytest.fixture(autouse=True)
def fake_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in fake_source.sources().items():
        monkeypatch.setitem(SOURCES, name, source)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_input_is_in_the_ledger(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = FakeEncoder()
    build(BuildArgs("some", str(tmp_path / "out")), encoder)
    rows = list(csv.DictReader((tmp_path / "out" / "ledger.csv").open()))
    assert [row["item"] for row in rows] == [f"clip {i}" for i in range(12)]
    assert [row["status"] for row in rows] == ["accepted", "accepted", "scaled", "rejected"] * 3
    assert rows[2] == {
        "item": "clip 2",
        "split": "train",
        "status": "scaled",
        "reason": "halved",
        "shape_before": "11x32x48",
        "shape_after": "5x16x24",
        "fps_before": "16",
        "fps_after": "8",
    }
    assert (rows[3]["reason"], rows[3]["shape_before"], rows[3]["shape_after"]) == ("broken", "9x20x20", "")
    table = capsys.readouterr().out
    assert [line.split() for line in table.splitlines()[:3]] == [
        ["split", "accepted", "scaled", "split", "rejected", "frames", "pixels/frame"],
        ["train", "3", "3", "0", "3", "30", "384-384"],
        ["val", "3", "0", "0", "0", "15", "384-384"],
    ]
    assert "rejected 3: broken" in table


def test_the_data_set(tmp_path: pathlib.Path) -> None:
    encoder = FakeEncoder()
    build(BuildArgs("some", str(tmp_path / "out")), encoder)
    dataset = Dataset(tmp_path / "out")
    assert encoder.seen == ["number 0", "number 1"]  # each caption once
    assert [dataset.example("train", i)["n"] for i in range(6)] == [0, 2, 4, 6, 8, 10]
    assert [int(i) for i in dataset.index("val").id] == [stable_id("some", i) for i in (1, 5, 9)]
    np.testing.assert_array_equal(dataset.read_clip("val", 2, caption="short").text_ME, [[6] * 3, [1] * 3])
    assert dataset.meta["text_encoder"] == {"name": "fake", "width": 3, "hash": "f00d"}
    assert dataset.meta["licence"] == "free" and dataset.meta["captions"] == ["short"]


def test_small_chunks_give_the_same_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build(BuildArgs("some", str(tmp_path / "a")), FakeEncoder())
    monkeypatch.setattr(assemble, "CHUNK_CLIPS", 2)
    monkeypatch.setattr(jobs, "JOB_INPUTS", 3)
    encoder = FakeEncoder()
    build(BuildArgs("some", str(tmp_path / "b")), encoder)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert encoder.seen == ["number 0", "number 1"]


def test_a_second_build_changes_nothing(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = BuildArgs("some", str(tmp_path / "out"))
    build(args, FakeEncoder())
    before = contents(tmp_path / "out")
    encoder = FakeEncoder()
    assert build(args, encoder) is None
    assert "already built" in capsys.readouterr().out and encoder.seen == []
    with pytest.raises(UserError, match="limit 0; choose another --out"):
        build(dataclasses.replace(args, options=Options(limit=4)), encoder)
    assert contents(tmp_path / "out") == before
    (tmp_path / "out" / "some-val.array_record-00000-of-00001").unlink()
    with pytest.raises(UserError, match="is missing"):
        build(args, encoder)


def test_other_things_are_not_overwritten(tmp_path: pathlib.Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a data set"):
        build(BuildArgs("some", str(tmp_path / "out")), FakeEncoder())
    (tmp_path / "file").write_text("precious")
    with pytest.raises(UserError, match="exists and is not a data set"):
        build(BuildArgs("some", str(tmp_path / "file")), FakeEncoder())
    assert (tmp_path / "out" / "thesis.tex").read_text() == (tmp_path / "file").read_text() == "precious"


def test_nothing_accepted_is_an_error_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"--source=none: no clip was accepted \(too dark\)"):
        build(BuildArgs("none", str(tmp_path / "out")), FakeEncoder())
    assert list(tmp_path.iterdir()) == []


def test_physics_does_not_depend_on_workers(tmp_path: pathlib.Path) -> None:
    for workers in (1, 2):
        args = BuildArgs("physics", str(tmp_path / str(workers)), Options(limit=1000, seed=5), workers=workers)
        build(args, FakeEncoder())
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    dataset = Dataset(tmp_path / "1")
    assert {split: dataset.size(split) for split in dataset.splits} == {"train": 1000, "val": 125, "ood": 125}
    example, made = dataset.example("ood", 70), clips.make_clip(5, "ood", 70)
    np.testing.assert_array_equal(example["video"], made.video_TYXC)
    for name, value in made.truth().items():
        np.testing.assert_array_equal(example[name], value)
    assert example["caption_short"] == made.captions["short"]


def test_physics_counts() -> None:
    assert physics_counts(0) == {"train": 12_000, "val": 256, "ood": 256}
    assert physics_counts(64) == {"train": 64, "val": 8, "ood": 8}
    assert physics_counts(1) == {"train": 1, "val": 1, "ood": 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(Patch(4, 16, 16)), "--patch=4,16,16 does not divide"),
        (Options(Patch(3, 8, 8)), "--patch=3,8,8 does not divide"),
        (Options(max_tokens=20), "--max_tokens=20: physics clips have up to 36"),
        (Options(fps=12), "--fps=12: physics clips have 10"),
    ],
)
def test_options_that_would_falsify_physics(tmp_path: pathlib.Path, options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(BuildArgs("physics", str(tmp_path / "out"), options), FakeEncoder())
    assert list(tmp_path.iterdir()) == []


FLAGS = dict.fromkeys(("max_tokens", "fps")) | {
    **{name: value for name, value in vars(Options()).items() if name not in ("max_tokens", "fps")},
    "source": "film",
    "out": "o",
    "limit": 3,
    "patch": "4,8,8",
    "reject": [],
    "autoencoder": "pixels",
    "text_encoder": "none",
    "workers": 1,
    "time_limit": 9.0,
    "reject_timeouts": False,
    "shard": "0/1",
    "merge": False,
}


def test_flags_take_the_defaults_of_the_source() -> None:
    args = make_args(FLAGS.get)
    assert (args.options.max_tokens, args.options.fps, args.options.limit) == (45, 12.0, 3)
    args = make_args({**FLAGS, "max_tokens": 0, "fps": 0.0}.get)
    assert (args.options.max_tokens, args.options.fps) == (0, 0.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"source": "films"}, "--source='films' is unknown; choose one of film, "),
        ({"limit": -1}, "--limit=-1 is negative"),
        ({"patch": "8,8"}, "--patch='8,8' is not three"),
        ({"patch": "4,0,8"}, "--patch='4,0,8' is not three"),
        ({"shard": "2/2"}, "--shard='2/2' is not i/n"),
        ({"shard": "one"}, "--shard='one' is not i/n"),
        ({"reject": ["grey"]}, "--reject='grey' is unknown; choose from black, frozen"),
    ],
)
def test_bad_flags(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_args({**FLAGS, **flags}.get)


def test_patch_and_unknown_autoencoder(tmp_path: pathlib.Path) -> None:
    assert parse_patch("1,16,8") == Patch(1, 16, 8) and parse_shard("3/8") == (3, 8)
    with pytest.raises(UserError, match="no autoencoder is called 'vae'; choose one of causal_vae:WEIGHTS"):
        build(BuildArgs("some", str(tmp_path / "out"), autoencoder="vae"), FakeEncoder())
    with pytest.raises(UserError, match="--out is missing"):
        build(BuildArgs("some", ""), FakeEncoder())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(shots=True), "--shots=True means nothing to --source=some"),
        (Options(val=0.1), "--val=0.1 means nothing"),
        (Options(film="f.mp4"), "--film=f.mp4 means nothing"),
    ],
)
def test_options_that_mean_nothing_to_the_source(tmp_path: pathlib.Path, options: Options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(BuildArgs("some", str(tmp_path / "out"), options), FakeEncoder())


def test_command_line(tmp_path: pathlib.Path) -> None:
    """A real run, and a mistake: one line on stderr, exit status 2."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "data_pipelines.build", "--source=physics", "--text_encoder=none", f"--out={out}"]
    done = subprocess.run([*command, "--limit=8"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and Dataset(out).size("train") == 8, done.stderr
    done = subprocess.run([*command, "--limit=9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1
    assert done.stderr.startswith(f"error: --out={out} is a data set with limit 8")
