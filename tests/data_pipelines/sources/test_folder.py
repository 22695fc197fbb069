"""A folder tree becomes a data set: captions, splits, and a ledger row for every file whatever is in it."""

import csv
import json
import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from make_files import grey, quadrants, write_sound, write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from data_pipelines.sources import folder
from vdit.errors import UserError


def ledger(out: pathlib.Path) -> dict[str, dict[str, str]]:
    with (out / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["item"] for row in rows}) == len(rows)
    return {row["item"]: row for row in rows}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Good files with captions of every kind, beside every sort of bad one."""
    root = tmp_path_factory.mktemp("tree")
    (root / "clips" / "deep").mkdir(parents=True)
    write_video(root / "clips" / "a.mp4", [quadrants(48, 64, i) for i in range(10)])
    (root / "clips" / "a.txt").write_text("four colours\nslide along\n")
    write_video(root / "clips" / "deep" / "b.webm", [quadrants(36, 60)] * 5, codec="libvpx", pix_fmt="yuv420p")
    write_video(root / "clips" / "long.mkv", [grey(i) for i in range(100, 140)])
    Image.fromarray(quadrants(64, 48)).save(root / "picture.png")
    Image.fromarray(quadrants(64, 48)).save(root / "nameless.jpg")
    (root / "clips" / "captions.csv").write_text(
        'file,caption,caption_long,split\ndeep/b.webm,still colours,"four colours, which stay",val\nlost.mp4,lost,,\n'
    )
    (root / "more.jsonl").write_text('{"file_name": "picture.png", "text": "a picture", "size": 3}\n\n')
    # What is wrong with files in the wild.
    whole = (root / "clips" / "a.mp4").read_bytes()
    (root / "bad").mkdir()
    (root / "bad" / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "bad" / "empty.mp4").touch()
    (root / "bad" / "mislabelled.mp4").write_text("this is a text")
    write_sound(root / "bad" / "sound.mp4")
    Image.fromarray(grey(9, 1, 1)).save(root / "bad" / "dot.png")
    Image.fromarray(grey(9, 16, 20000)).save(root / "bad" / "thin.png")
    (root / "notes.md").write_text("no clip")
    (root / ".hidden").mkdir()
    (root / ".hidden" / "a.mp4").write_bytes(whole)
    return root


@pytest.fixture(scope="module")
def built(tree: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("out") / "data"
    options = Options(max_tokens=30, max_frames=9, min_frames=1)
    build(BuildArgs(str(tree), str(out), options, workers=2), FakeEncoder())
    return out


def test_every_file_has_a_row(built: pathlib.Path) -> None:
    rows = ledger(built)
    found = {item: row["status"] for item, row in rows.items()}
    pieces = {f"clips/long.mkv [{a}, {min(a + 9, 40)})": "scaled" for a in range(0, 40, 9)}
    assert found == {
        "bad/dot.png": "rejected",
        "bad/empty.mp4": "rejected",
        "bad/mislabelled.mp4": "rejected",
        "bad/sound.mp4": "rejected",
        "bad/thin.png": "rejected",
        "bad/truncated.mp4": "rejected",
        "clips/a.mp4 [0, 9)": "scaled",
        "clips/a.mp4 [9, 10)": "scaled",
        "clips/a.mp4": "cut",
        "clips/deep/b.webm": "scaled",
        **pieces,
        "clips/long.mkv": "cut",
        "clips/lost.mp4": "rejected",
        "nameless.jpg": "scaled",
        "picture.png": "scaled",
        "*.md": "rejected",
        ".*": "rejected",
    }
    assert rows["*.md"]["reason"] == "1 file not read: neither a video nor a picture by name"
    assert rows[".*"]["reason"] == "1 hidden file is not read"
    assert rows["clips/a.mp4 [0, 9)"]["shape_before"] == "9x48x64"
    assert rows["clips/a.mp4 [0, 9)"]["shape_after"] == "9x40x48"
    assert rows["clips/a.mp4"]["reason"] == "cut into 2 pieces, 2 of them stored"
    assert rows["clips/lost.mp4"]["reason"] == "a caption table names it, but it is not there"
    assert rows["bad/thin.png"]["shape_before"] == "1x16x20000"
    assert all(row["reason"] for row in rows.values() if row["status"] == "rejected")
    assert "no caption" in rows["nameless.jpg"]["reason"]
    assert (rows["clips/a.mp4 [0, 9)"]["fps_before"], rows["clips/a.mp4 [0, 9)"]["fps_after"]) == ("24", "24")


def test_what_is_stored(built: pathlib.Path) -> None:
    dataset = Dataset(built)
    assert (dataset.size("train"), dataset.size("val")) == (9, 1)
    examples = {split: [dataset.example(split, i) for i in range(dataset.size(split))] for split in ("train", "val")}
    captions = {(e["caption_caption"], e["caption_long"]) for e in examples["train"]}
    # A file without a long caption has the other one in its place.
    assert captions == {("four colours slide along",) * 2, ("", ""), ("a picture", "a picture")}
    (example,) = examples["val"]
    assert (example["caption_caption"], example["caption_long"]) == ("still colours", "four colours, which stay")
    assert example["video"].shape == (5, 32, 56, 3)
    assert dataset.meta["captions"] == ["caption", "long"] and dataset.meta["source"] == "folder"


def test_native_sizes_without_a_limit(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    build(BuildArgs(str(tree), str(tmp_path / "out")), FakeEncoder())
    rows = ledger(tmp_path / "out")
    assert rows["clips/a.mp4"]["status"] == "accepted" and rows["clips/a.mp4"]["shape_after"] == "9x48x64"
    assert rows["clips/deep/b.webm"]["shape_after"] == "5x40x64"  # rounded: half a patch at most
    assert rows["bad/thin.png"]["status"] == "accepted"


def test_nothing_accepted_is_an_error(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    bad = BuildArgs(str(tree / "bad"), str(tmp_path / "out"), Options(max_tokens=30))
    with pytest.raises(UserError, match="no clip was accepted") as caught:
        build(bad, FakeEncoder())
    assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == []
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "nowhere", tree / "notes.md"):
        with pytest.raises(UserError, match=r"gives nothing to read|is unknown"):
            build(BuildArgs(str(path), str(tmp_path / "out")), FakeEncoder())


def test_other_files_are_another_data_set(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    root = tmp_path / "tree"
    root.mkdir()
    Image.fromarray(quadrants(64, 48)).save(root / "a.png")
    args = BuildArgs(str(root), str(tmp_path / "out"))
    build(args, FakeEncoder())
    assert build(args, FakeEncoder()) is None
    (root / "a.txt").write_text("now with a caption")
    with pytest.raises(UserError, match="is a data set with inputs"):
        build(args, FakeEncoder())


def test_the_share_of_val_goes_by_names(tmp_path: pathlib.Path) -> None:
    for i in range(200):
        (tmp_path / f"{i}.png").touch()
    listed = folder.inputs(str(tmp_path), Options(val=0.2))
    val = {each.item for each in listed if each.split == "val"}
    assert 20 < len(val) < 60
    more = folder.inputs(str(tmp_path), Options(val=0.4))
    assert val < {each.item for each in more if each.split == "val"}
    (tmp_path / "new.png").touch()
    assert {each.item for each in folder.inputs(str(tmp_path), Options(val=0.2)) if each.split == "val"} - val <= {
        "new.png"
    }
    few = list(folder.inputs(str(tmp_path), Options(val=0.2, limit=40)))
    assert sum(each.split == "train" for each in few) == 40 and 5 < sum(each.split == "val" for each in few) < 15


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("captions.csv", "caption\nwords\n", "row 2 names no file"),
        ("captions.csv", "file,note\na.png,words\n", "row 2 has no caption"),
        ("captions.csv", 'file,caption\na.png,"open\n', "not a table of captions"),
        ("captions.csv", "file,caption\na.png,x,y\n", "more cells than the header"),
        ("captions.csv", "file,caption\na.png,x\na.png,y\n", "row 3 contradicts an earlier row"),
        ("captions.csv", "file,caption,split\na.png,x,../../etc\n", "is not a name like train or val"),
        ("x.jsonl", "{\n", "not a table of captions"),
        ("x.jsonl", "[1]\n", "row 1 is no object"),
        ("x.jsonl", "[" * 100_000, "not a table of captions"),
        ("captions.csv", b"file,caption\na.png,\xff\n", "not a table of captions"),
    ],
)
def test_caption_files_that_cannot_be_understood(tmp_path: pathlib.Path, name: str, text, message: str) -> None:
    (tmp_path / "a.png").touch()
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message) as caught:
        folder.inputs(str(tmp_path), Options())
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_names_in_tables_stay_in_the_tree(tmp_path: pathlib.Path) -> None:
    """A table may name a file outside; it is then no file of the tree, and not read."""
    (tmp_path / "tree").mkdir()
    Image.fromarray(quadrants(48, 64)).save(tmp_path / "secret.png")
    Image.fromarray(quadrants(48, 64)).save(tmp_path / "tree" / "a.png")
    rows = [{"file": file, "text": "x"} for file in ("../secret.png", str(tmp_path / "secret.png"), "a.png")]
    (tmp_path / "tree" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listed = list(folder.inputs(str(tmp_path / "tree"), Options()))
    assert [each.item for each in listed if each.path] == ["a.png"] and len(listed) == 3


def test_ids_depend_on_names_only(built: pathlib.Path, tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    build(BuildArgs(str(tree), str(tmp_path / "out"), Options(max_tokens=12, max_frames=9)), FakeEncoder())
    one, two = Dataset(built).index("train"), Dataset(tmp_path / "out").index("train")
    np.testing.assert_array_equal(one.id, two.id)
    assert not np.array_equal(one.height, two.height)
