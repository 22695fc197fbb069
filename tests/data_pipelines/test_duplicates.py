"""Near duplicates: planted ones are found, others are not, and a data set tells of them."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest
from inline_engine import inline
from make_files import write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.curation.duplicates import find_duplicates, mark
from data_pipelines.building.jobs import rejecting
from data_pipelines.inspecting.contact_sheet import pairs_sheet
from data_pipelines.inspecting.ledger_names import names_of
from data_pipelines.inspecting.pairs import read_pairs
from data_pipelines.media.clip import Options
from data_pipelines.media.filters import parse_filters
from data_pipelines.media.hashing import BYTES, clip_hash, mirrored
from data_pipelines.packing.packing import Plan
from data_pipelines.reading.store import Dataset
from vdit.config import DataConfig
from vdit.errors import UserError

FLIPPED = 0.06


def hashes(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (count, BYTES), np.uint8)


def changed(hash_NB: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return hash_NB ^ np.packbits(rng.random((len(hash_NB), BYTES * 8)) < FLIPPED, axis=1)


def test_planted_hashes_are_found_and_no_others() -> None:
    rng = np.random.default_rng(0)
    alone = hashes(2000, rng)
    again, flipped = changed(alone[:50], rng), changed(mirrored(alone[50:80]), rng)
    found = find_duplicates(np.concatenate([alone, again, flipped]), np.ones(2080, bool))
    np.testing.assert_array_equal(found.pairs_P2, np.stack([np.arange(80), 2000 + np.arange(80)], 1))
    np.testing.assert_array_equal(found.mirrored_P, np.arange(80) >= 50)
    assert np.abs(found.difference_P - FLIPPED).max() < 0.04
    np.testing.assert_array_equal(found.group_N[:80], found.group_N[2000:])
    assert len(np.unique(found.group_N)) == 2000


def test_many_copies_hang_together() -> None:
    rng = np.random.default_rng(1)
    copies = changed(np.repeat(hashes(1, rng), 300, 0), rng)
    assert len(np.unique(find_duplicates(copies, np.ones(300, bool)).group_N)) == 1
    assert len(np.unique(find_duplicates(copies, np.arange(300) < 10).group_N)) == 291  # of those that say anything


def test_none_and_one() -> None:
    for count in (0, 1):
        found = find_duplicates(np.zeros((count, BYTES), np.uint8), np.ones(count, bool))
        assert len(found.pairs_P2) == 0 and len(found.group_N) == count


def test_marks() -> None:
    """The first of a group in a split is kept, unless the group reaches into another split."""
    groups, splits = np.array([0, 1, 0, 2, 3, 3, 0, 4]), np.array([0, 0, 0, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(mark(groups, splits), [0, 0, 1, 0, 2, 2, 1, 0])
    assert len(mark(np.zeros(0, np.int32), np.zeros(0, np.int32))) == 0


def picture(seed: int) -> np.ndarray:
    """Forty rectangles on grey, 96 x 128."""
    rng = np.random.default_rng(seed)
    out = np.full((96, 128, 3), 128, np.uint8)
    for _ in range(40):
        y, x = rng.integers(0, 88), rng.integers(0, 120)
        out[y : y + rng.integers(8, 40), x : x + rng.integers(8, 40)] = rng.integers(0, 256, 3)
    return out


def test_a_hash_changes_little_with_a_clip() -> None:
    clips = [np.stack([np.roll(picture(seed), t // 2, 1) for t in range(24)]) for seed in range(4)]
    bits = [np.unpackbits(clip_hash(clip)).astype(bool) for clip in clips]
    small = [np.stack([np.asarray(Image.fromarray(frame).resize((80, 60))) for frame in clip]) for clip in clips]
    for n, clip in enumerate(clips):
        for other in (small[n], clip[2:], np.clip(clip.astype(int) + 12, 0, 255).astype(np.uint8)):
            assert (np.unpackbits(clip_hash(other)) != bits[n]).mean() < 0.1
        flipped = mirrored(clip_hash(np.ascontiguousarray(clip[:, :, ::-1]))[None])[0]
        assert (np.unpackbits(flipped) != bits[n]).mean() < 0.1
        assert min((bits[n] != bits[other]).mean() for other in range(4) if other != n) > 0.3
    assert clip_hash(clips[0][:1]).shape == clip_hash(clips[0]).shape == (BYTES,)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Four clips; a mirrored copy of one, and one of another in val."""
    root = tmp_path_factory.mktemp("duplicates")
    (root / "in").mkdir()
    clips = {f"{seed}.mp4": [np.roll(picture(seed), t, 1) for t in range(9)] for seed in range(4)}
    clips["again.mp4"] = [np.ascontiguousarray(frame[:, ::-1]) for frame in clips["0.mp4"]]
    clips["val.mp4"] = [frame // 2 + 60 for frame in clips["3.mp4"]]
    for name, frames in clips.items():
        write_video(root / "in" / name, frames)
    (root / "in" / "captions.csv").write_text("file,caption,split\nval.mp4,a clip,val\n")
    with inline():
        build(BuildArgs(str(root / "in"), str(root / "out")))
    return root / "out"


def test_a_data_set_tells_of_its_duplicates(built: pathlib.Path) -> None:
    dataset = Dataset(built)
    np.testing.assert_array_equal(dataset.index("train").measures["duplicate"], [0, 0, 0, 2, 1])
    np.testing.assert_array_equal(dataset.index("val").measures["duplicate"], [2])
    rows = list(csv.DictReader((built / "duplicates.csv").open()))
    found = [(row["split"], row["number"], row["other_split"], row["other_number"], row["mirrored"]) for row in rows]
    assert found == [("train", "0", "train", "4", "1"), ("train", "3", "val", "0", "0")]
    assert {int(row["id"]) for row in rows} <= set(dataset.index("train").id.tolist())


def test_training_leaves_duplicates_out(built: pathlib.Path) -> None:
    dataset = Dataset(built)
    config = DataConfig(path=str(built), filter="duplicate == 0", row_tokens=4096, rows_per_step=1)
    plan = Plan(dataset.index("train"), config, dataset.patch, 0, ("caption",), (5,))
    assert sorted(plan.epoch(0).examples.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("text", ["duplicate > 0", "motion > 0.1 and duplicate > 1"])
def test_a_build_cannot_reject_what_it_does_not_know_yet(text: str) -> None:
    with pytest.raises(UserError, match="duplicates are known only when all clips are built; .*data.filter="):
        parse_filters([text])


def clips_of(out: pathlib.Path) -> dict[str, list[str]]:
    """Names of the inputs of the stored clips, by split."""
    dataset = Dataset(out)
    named = {split: names_of(out, split, range(dataset.size(split)), dataset.size(split)) for split in dataset.splits}
    return {split: list(names.values()) for split, names in named.items()}


@pytest.fixture
def deduplicated(built: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> BuildArgs:
    """The same clips in two jobs and more, built without duplicates."""
    monkeypatch.setattr("data_pipelines.building.jobs.jobs.JOB_INPUTS", 2)
    options = Options(reject=parse_filters(["duplicate"]))
    args = BuildArgs(str(built.parent / "in"), str(tmp_path / "out"), options)
    with inline():
        ledger = build(args)
    assert ledger is not None and ledger.counts["train", "rejected"] == 2
    return args


def test_a_build_leaves_duplicates_out(built: pathlib.Path, deduplicated: BuildArgs) -> None:
    """One of each group stays, that of val."""
    out = pathlib.Path(deduplicated.out)
    assert clips_of(out) == {"train": ["0.mp4", "1.mp4", "2.mp4"], "val": ["val.mp4"]}
    reasons = {row["item"]: row["reason"] for row in csv.DictReader((out / "ledger.csv").open())}
    assert reasons["again.mp4"] == "not wanted: duplicate of train 0.mp4"
    assert reasons["3.mp4"] == "not wanted: duplicate of val val.mp4"
    dataset, whole = Dataset(out), Dataset(built)
    for i in range(3):  # the first three of `built`
        np.testing.assert_array_equal(dataset.read_clip("train", i).video_TYXC, whole.read_clip("train", i).video_TYXC)
    assert not any(dataset.index(split).measures["duplicate"].any() for split in dataset.splits)
    assert read_pairs(out) == []


@pytest.mark.parametrize("killed", [0, 1])
def test_a_build_that_is_stopped_while_it_leaves_duplicates_out(
    deduplicated: BuildArgs, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, killed: int
) -> None:
    """Between a shard and its result: the next start ends with the same bytes."""
    args, calls, leave_out = dataclasses.replace(deduplicated, out=str(tmp_path / "again")), [], rejecting._leave_out

    def stopped(*arguments):
        made = leave_out(*arguments)
        calls.append(made)
        if len(calls) == killed + 1:
            raise KeyboardInterrupt
        return made

    with inline(), monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(rejecting, "_leave_out", stopped)
        build(args)
    with inline():
        build(args)
    files, expected = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in map(
        pathlib.Path, (args.out, deduplicated.out)
    ))  # fmt: skip
    assert files == expected


def test_pairs_are_drawn_side_by_side(built: pathlib.Path, tmp_path: pathlib.Path) -> None:
    pairs = read_pairs(built)
    assert [pair.clips for pair in pairs] == [(("train", 0), ("train", 4)), (("train", 3), ("val", 0))]
    assert [pair.mirrored for pair in pairs] == [True, False] and all(0 <= pair.difference < 0.14 for pair in pairs)
    sheet, single = pairs_sheet(Dataset(built)), pairs_sheet(Dataset(built), count=1)
    assert sheet.width == single.width and sheet.height == 2 * single.height
    row = sorted(pairs, key=lambda pair: pair.difference).index(pairs[0])  # frames are drawn 128 pixels wide
    top = row * single.height + 20
    clip, copy = (np.asarray(sheet)[top : top + 90, left : left + 128].astype(int) for left in (0, sheet.width // 2))
    assert abs(clip - copy[:, ::-1]).mean() < 20 < abs(clip - copy).mean()
    (tmp_path / "duplicates.csv").write_text("split,number\ntrain,x\n")
    with pytest.raises(UserError, match="duplicates.csv is damaged"):
        read_pairs(tmp_path)
    assert read_pairs(tmp_path / "none") == []
