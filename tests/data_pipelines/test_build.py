"""The builder: complete or absent, the same bytes every time, every input accounted for."""

import csv
import dataclasses
import os
import pathlib
import subprocess
import sys

import fake_source
import numpy as np
import PIL.Image
import pytest
import tensorflow_datasets as tfds
from fake_source import FakeEncoder
from inline_engine import inline

from data_pipelines.building.build_args import BuildArgs, make_args, parse_patch
from data_pipelines.building.build_flags import SOURCE_NAMES
from data_pipelines.building.builder import build
from data_pipelines.building.jobs import do_job
from data_pipelines.building.jobs.jobs import plan_jobs
from data_pipelines.media.clip import Input, Options, stable_id
from data_pipelines.media.signatures import sign
from data_pipelines.reading.store import Dataset
from data_pipelines.sources.physics import clips
from data_pipelines.sources.physics.physics_source import physics_counts
from data_pipelines.sources.registry import SOURCES
from vdit.errors import UserError
from vdit.io.storage.signature import file_signature
from vdit.patches import Patch


@pytest.fixture(autouse=True)
def fake_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in fake_source.sources().items():
        monkeypatch.setitem(SOURCES, name, source)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("out", ["in", "in/data", "link/data", "in/../in/a/b"])
def test_a_data_set_within_its_source_is_refused(tmp_path: pathlib.Path, out: str) -> None:
    """It would be an input of the next build."""
    (tmp_path / "in").mkdir()
    PIL.Image.new("RGB", (16, 16)).save(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to("in")
    with pytest.raises(UserError, match="lies in --source=.*, so it would be read as well; choose another place"):
        build(BuildArgs(str(tmp_path / "in"), str(tmp_path / out)), FakeEncoder())
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.png"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_flags_that_are_no_numbers_are_refused(tmp_path: pathlib.Path, number: float) -> None:
    for args in (BuildArgs(str(tmp_path), "/out", Options(fps=number)), BuildArgs("some", "/out", time_limit=number)):
        with pytest.raises(
            UserError, match=r"--(fps|time_limit)=(nan|inf) is not a number; leave it out for the default"
        ):
            build(args, FakeEncoder())


def test_help_names_every_source() -> None:
    assert set(SOURCES) - set(fake_source.sources()) == set(SOURCE_NAMES)


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
        ["split", "accepted", "scaled", "cut", "rejected", "frames", "pixels/frame"],
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


def test_small_batches_give_the_same_bytes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = FakeEncoder()
    with inline():
        build(BuildArgs("some", str(tmp_path / "a")), FakeEncoder())
        monkeypatch.setattr(do_job, "BATCH_CLIPS", 2)
        build(BuildArgs("some", str(tmp_path / "b")), encoder)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(encoder.seen) == ["number 0", "number 1"]


def test_one_job_makes_one_shard_whose_name_is_known_before() -> None:
    weights = [60 << 20, 1, 5 << 20, 1, 70 << 20, 1]
    inputs = [Input(f"{i}", "val" if i == 3 else "train", weight=weight) for i, weight in enumerate(weights)]
    jobs = plan_jobs(inputs, "clips")
    assert [job.places for job in jobs] == [(0, 1), (2,), (3,), (4,), (5,)]
    names = [f"clips-train.array_record-{i:05d}-of-00004" for i in range(4)]
    assert [job.file for job in jobs] == [*names[:2], "clips-val.array_record-00000-of-00001", *names[2:]]
    assert [job.inputs[0].item for job in jobs] == ["0", "2", "3", "4", "5"]
    many = plan_jobs([Input(f"{i}", "train") for i in range(1000)], "clips")
    assert [len(job.inputs) for job in many] == [128] * 7 + [104]


def test_jobs_grow_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_pipelines.building.jobs.jobs.MAX_JOBS", 10)
    jobs = plan_jobs([Input(f"{i}", "train", weight=40 << 20) for i in range(100)], "clips")
    assert [len(job.inputs) for job in jobs] == [10] * 10


def test_another_file_of_equal_size_is_another_data_set(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    file = tmp_path / "in" / "a.png"
    PIL.Image.new("RGB", (16, 16), "red").save(file, compress_level=0)
    args = BuildArgs(str(tmp_path / "in"), str(tmp_path / "out"))
    with inline():
        build(args)
        file.write_bytes(file.read_bytes())  # the same again, at another time
        assert build(args) is None
        size = file.stat().st_size
        PIL.Image.new("RGB", (16, 16), "lime").save(file, compress_level=0)
        assert file.stat().st_size == size
        with pytest.raises(UserError, match="is a data set with inputs"):
            build(args)


def test_inputs_are_signed_by_their_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    os.mkfifo(tmp_path / "pipe")
    signed = list(sign([Input(name, "train", str(tmp_path / name)) for name in ("file", "pipe", "gone")]))
    assert [each.signature for each in signed[1:]] == ["no regular file", "FileNotFoundError"]
    assert signed[0].signature == file_signature(tmp_path / "file")
    assert next(sign([Input("made", "train")])).signature == ""


def test_home_is_understood(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    args = make_args({**FLAGS, "source": "physics", "out": "~/ds", "limit": 2}.get)
    with inline():
        assert build(args) is not None
    assert Dataset(tmp_path / "ds").size("train") == 2 and [path.name for path in tmp_path.iterdir()] == ["ds"]
    assert make_args({**FLAGS, "film": "~/film.mp4"}.get).options.film == str(tmp_path / "film.mp4")


def test_a_data_set_opens_with_tfds_even_where_shards_are_empty(tmp_path: pathlib.Path, monkeypatch) -> None:
    monkeypatch.setattr("data_pipelines.building.jobs.jobs.JOB_INPUTS", 1)
    with inline():
        build(BuildArgs("some", str(tmp_path / "out")))
    data = tfds.builder_from_directory(str(tmp_path / "out")).as_data_source(split="train")
    assert [int(data[i]["n"]) for i in range(len(data))] == [0, 2, 4, 6, 8, 10]
    dataset = Dataset(tmp_path / "out")
    shards = [shard["examples"] for shard in dataset.meta["splits"]["train"]["shards"]]
    assert shards == [1, 1, 0] * 3
    assert [dataset.example("train", i)["n"] for i in range(6)] == [0, 2, 4, 6, 8, 10]


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
        (Options(fps=12), "--fps=12: this world has 10 frames/s"),
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
    "captioner": "",
    "detector": "",
    "embed": False,
    "engine": "local",
    "ray_address": "",
}


def test_flags_take_the_defaults_of_the_source() -> None:
    args = make_args(FLAGS.get)
    assert (args.options.max_tokens, args.options.fps, args.options.limit) == (45, 12.0, 3)
    args = make_args({**FLAGS, "max_tokens": 0, "fps": 0.0}.get)
    assert (args.options.max_tokens, args.options.fps) == (0, 0.0)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"source": ""}, "--source is missing: name a folder .* as in python -m data_pipelines.build --source=physics"),
        ({"source": "films"}, "--source='films' is unknown; choose one of film, "),
        ({"limit": -1}, "--limit=-1 is negative"),
        ({"patch": "8,8"}, "--patch='8,8' is not three"),
        ({"patch": "4,0,8"}, "--patch='4,0,8' is not three"),
        ({"reject": ["grey"]}, "--reject='grey' is unknown; choose from black, frozen"),
        (
            {"reject": ["black", "grey<3"]},
            "--reject='grey<3': there is no 'grey'; there are bars, bits_per_pixel, brightness",
        ),
        ({"reject": ["motion<f()"]}, "--reject='motion<f..' is not a condition"),
    ],
)
def test_bad_flags(flags: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_args({**FLAGS, **flags}.get)


def test_patch_and_unknown_autoencoder(tmp_path: pathlib.Path) -> None:
    assert parse_patch("1,16,8") == Patch(1, 16, 8)
    with pytest.raises(UserError, match="no autoencoder is called 'vae'; choose one of causal_vae:WEIGHTS"):
        build(BuildArgs("some", str(tmp_path / "out"), autoencoder="vae"), FakeEncoder())
    with pytest.raises(UserError, match="--out is missing"):
        build(BuildArgs("some", ""), FakeEncoder())
    with pytest.raises(UserError, match="--ray_address=head:6379 does not apply to --engine=local"):
        build(BuildArgs("some", str(tmp_path / "out"), ray_address="head:6379"), FakeEncoder())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(shots=True), "--shots=True does not apply to --source=some"),
        (Options(val=0.1), "--val=0.1 does not apply"),
        (Options(film="f.mp4"), "--film=f.mp4 does not apply"),
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


@pytest.mark.parametrize("content", ["", "[]", "null", '{"build": 3}', "[" * 100_000, "\xff"])
def test_damaged_descriptions_are_one_line(tmp_path: pathlib.Path, content: str) -> None:
    for folder, name in (("out", "vdit.json"), ("other.partial", "plan.json")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / name).write_bytes(content.encode("latin-1"))
    with inline():
        with pytest.raises(UserError, match="out/vdit.json is damaged|out is a data set with"):
            build(BuildArgs("some", str(tmp_path / "out")))
        with pytest.raises(UserError, match="plan.json is damaged|is an unfinished build with"):
            build(BuildArgs("some", str(tmp_path / "other")))


def test_an_unknown_text_encoder_is_found_before_anything_is_read(tmp_path: pathlib.Path) -> None:
    with pytest.raises(UserError, match="no text encoder is called 'x'"):
        build(BuildArgs("some", str(tmp_path / "out"), text_encoder="x"))
    assert not (tmp_path / "out").exists()
