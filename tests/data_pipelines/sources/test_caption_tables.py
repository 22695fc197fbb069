"""Caption tables that were written on another machine or by hand, and cells that hold no caption."""

import json
import pathlib
import unicodedata

import pytest
from make_files import grey
from PIL import Image

from data_pipelines.media.clip import Options
from data_pipelines.sources import folder
from vdit.errors import UserError


def tree(root: pathlib.Path, *names: str) -> pathlib.Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey(9)).save(root / name)
    return root


def captions(root: pathlib.Path) -> dict[str, str]:
    """Captions by name of the file, of files that are there."""
    return {each.item: each.captions["caption"] for each in folder.inputs(str(root), Options()) if each.path}


def notes(root: pathlib.Path) -> dict[str, tuple[str, ...]]:
    return {each.item: each.notes for each in folder.inputs(str(root), Options()) if each.path}


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.png", "/data/clips/a.png"),  # another machine
        ("a.png", "C:\\data\\clips\\a.png"),
        ("a.png", "file:///data/clips/a.png"),
        ("deep/a.png", "/data/clips/deep/a.png"),
        ("deep/a.png", "deep\\a.png"),
        ("deep/a.png", "./deep//a.png"),
        ("deep/a.png", "clips/deep/a.png"),
        ("a.png", "  a.png "),
        ("A.PNG", "a.png"),
        ("a.png", "A.png"),
        ("a.png", "a"),
        ("deep/a.b.png", "/x/deep/A.B"),
        (unicodedata.normalize("NFC", "Bär.png"), unicodedata.normalize("NFD", "Bär.png")),
        (unicodedata.normalize("NFD", "Bär.png"), unicodedata.normalize("NFC", "bär.png")),
        ("a b/c d.png", "/home/me/a b/c d.png"),
        ("A::B.png", "/home/me/A::B.png"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_names_written_elsewhere(tmp_path: pathlib.Path, name: str, written: str, kind: str) -> None:
    root = tree(tmp_path / "clips", name, "other.png")
    if kind == "csv":
        (root / "metadata.csv").write_text(f'path,text\n"{written}",hello\n')
    else:
        (root / "m.jsonl").write_text(json.dumps({"file": written, "caption": "hello"}))
    found = captions(root)
    assert found == {name: "hello", "other.png": ""}


def test_an_exact_name_comes_before_one_that_is_alike(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path / "clips", "a.png", "A.png", "x/a.png")
    rows = [("a.png", "small"), ("A.png", "large"), ("/data/clips/x/a.png", "deep")]
    (root / "captions.csv").write_text("file,text\n" + "".join(f"{file},{text}\n" for file, text in rows))
    assert captions(root) == {"a.png": "small", "A.png": "large", "x/a.png": "deep"}


def test_what_fits_several_fits_none(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture) -> None:
    """Two files alike, and two rows that could both mean one file."""
    root = tree(tmp_path / "clips", "b.png", "B.png", "a.png", "c.png")
    rows = ("/x/B.PNG", "/one/a.png", "/two/a.png", "c.png")
    (root / "captions.csv").write_text("file,text\n" + "".join(f"{file},of {file}\n" for file in rows))
    assert captions(root) == {"b.png": "", "B.png": "", "a.png": "", "c.png": "of c.png"}
    assert "warning: 3 of 4 rows of captions.csv fit no file, such as '/x/B.PNG' in row 2" in capsys.readouterr().err


def test_tables_of_a_share_mean_the_folder_of_its_name(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path / "train", "a.png")
    (root / "captions.csv").write_text("file,text\n/d/train/a.png,right\n/d/val/b.png,not there\n")
    assert captions(root) == {"a.png": "right"}


def test_a_table_that_fits_no_file_ends_the_build(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path / "clips", "a.png")
    (root / "captions.csv").write_text("file,text\nx/lost.png,one\nlost2.png,two\n")
    with pytest.raises(UserError, match=r"none of the 2 rows of captions.csv fits a file of .*'x/lost.png' in row 2"):
        captions(root)


@pytest.mark.parametrize(
    ("cell", "note"),
    [
        ('""', ()),
        ('"  "', ()),
        ("null", ()),
        ('["a", "b"]', ("its caption is a list, not text",)),
        ("7", ("its caption is a number, not text",)),
        ("7.5", ("its caption is a number, not text",)),
        ("true", ("its caption is a truth value, not text",)),
        ('{"en": "a"}', ("its caption is an object, not text",)),
        ('"\\ud83d"', ("its caption has half a character (a lone surrogate)",)),
    ],
)
def test_cells_without_a_caption_cost_that_caption(tmp_path: pathlib.Path, cell: str, note: tuple[str, ...]) -> None:
    root = tree(tmp_path / "clips", "a.png", "b.png")
    lines = (f'{{"file": "a.png", "caption": {cell}}}', '{"file": "b.png", "caption": "fine"}')
    (root / "m.jsonl").write_text("\n".join(lines))
    assert captions(root) == {"a.png": "", "b.png": "fine"} and notes(root)["a.png"] == note


def test_empty_cells_of_csv(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path / "clips", "a.png", "b.png")
    (root / "metadata.csv").write_text("file,caption\na.png,\nb.png\n")
    assert captions(root) == {"a.png": "", "b.png": ""} and notes(root) == {"a.png": (), "b.png": ()}


@pytest.mark.parametrize("file", ["null", '""', "[1]", '"  "'])
def test_rows_without_a_file_are_named(tmp_path: pathlib.Path, file: str) -> None:
    root = tree(tmp_path / "clips", "a.png")
    (root / "m.jsonl").write_text(f'{{"file": {file}, "caption": "x"}}\n{{"file": "a.png", "caption": "fine"}}')
    listed = {each.item: each.data for each in folder.inputs(str(root), Options()) if not each.path}
    assert captions(root) == {"a.png": "fine"} and listed == {"m.jsonl row 1": "the row names no file"}


def test_line_ends_that_stand_inside_of_strings(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path / "clips", "a.png", "b.png")
    texts = {"a.png": "one\u2028two", "b.png": "one\u0085two\u2029three"}
    rows = [json.dumps({"file": file, "caption": text}, ensure_ascii=False) for file, text in texts.items()]
    (root / "m.jsonl").write_text("\r\n".join(rows), encoding="utf-8")
    assert captions(root) == texts
    (root / "m.jsonl").unlink()
    (root / "captions.csv").write_text("file,text\n" + "".join(f"{f},{t}\n" for f, t in texts.items()), "utf-8")
    assert captions(root) == texts


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le-with-mark"])
def test_byte_order_marks(tmp_path: pathlib.Path, encoding: str) -> None:
    root = tree(tmp_path / "clips", "a.png", "b.png", "c.png")

    def encode(text: str) -> bytes:
        return ("\ufeff" + text).encode("utf-16-le") if encoding.endswith("mark") else text.encode(encoding)

    (root / "captions.csv").write_bytes(encode("file,text\na.png,Bär\n"))
    (root / "m.jsonl").write_bytes(encode('{"file": "b.png", "text": "Bär"}\n'))
    (root / "c.txt").write_bytes(encode("Bär\n"))
    assert captions(root) == dict.fromkeys(["a.png", "b.png", "c.png"], "Bär")
