"""Contact sheets name the file of each clip, and draw captions of any script."""

import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from make_files import grey, quadrants, write_video
from PIL import Image, ImageDraw

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.inspecting import contact_sheet, fonts
from data_pipelines.inspecting.fonts import Text
from data_pipelines.inspecting.ledger_names import names_of
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError

SCRIPTS = {
    "Latin": "a bear äöüłż",
    "Greek": "μια αρκούδα",
    "Cyrillic": "медведь",
    "Arabic": "دب صغير",
    "Hindi": "एक भालू",
    "Thai": "หมี",
    "Chinese": "一只熊",
    "Japanese": "熊のぬいぐるみ",
    "Korean": "곰 한 마리",
    "Georgian": "დათვი",
}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No font can be fetched; what this machine has is up to it."""

    def refuse(*_):
        raise UserError("no network")

    monkeypatch.setattr(fonts, "fetch_package", refuse)


def drawn(text: Text, line: str) -> np.ndarray:
    picture = Image.new("L", (400, 24), "white")
    draw = ImageDraw.Draw(picture)
    draw.fontmode = "L"
    text.draw(draw, 2, 2, line)
    return np.asarray(picture)


def test_no_two_captions_look_alike(offline: None) -> None:
    """Signs that no font has would all be the same box."""
    text = Text(12)
    lines = [*SCRIPTS.values(), "熊", "貓", "ก", "ข", "अ", "आ"]
    pictures = [drawn(text, line) for line in lines]
    assert all((picture < 128).any() for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(lines)


def test_a_sign_that_no_font_has_is_written_as_its_code_point(offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fonts, "_installed", lambda: ())
    text = Text(12)
    np.testing.assert_array_equal(drawn(text, "a熊b"), drawn(text, "a\\u718ab"))


def test_fonts_are_fetched_for_what_this_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(fonts, "_installed", lambda: ())

    def fetch(requirement: str, members: dict[str, str]):
        asked.append(requirement)
        assert all(len(sha256) == 64 for sha256 in members.values())
        raise UserError("no network")

    monkeypatch.setattr(fonts, "fetch_package", fetch)
    for line in SCRIPTS.values():
        drawn(Text(12), line)
    assert {name.split("==")[0].rsplit("-", 1)[-1] for name in asked} == {"arabic", "devanagari", "thai", "regular"}


def test_wrapping_measures(offline: None) -> None:
    text = Text(12)
    for line in ("the bear chases a butterfly " * 9, "x" * 300, "一只熊在追蝴蝶" * 20, "अ" * 99):
        lines = text.wrap(line, 200)
        assert len(lines) > 2 and all(text._width(each) <= 200 for each in lines)
        assert "".join(lines).replace(" ", "") == line.replace(" ", "")
    assert text.wrap("short", 200) == ["short"] and text.wrap("", 200) == [""]


def test_files_are_named(tmp_path: pathlib.Path, offline: None, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "clips"
    (root / "deep").mkdir(parents=True)
    write_video(root / "long.mp4", [grey(i) for i in range(100, 140)])
    for name in ("b.png", "deep/a.png", "熊.png"):
        Image.fromarray(quadrants(48, 64)).save(root / name)
        (root / name).with_suffix(".txt").write_text(f"caption of {name}", encoding="utf-8")
    (root / "bad.png").write_bytes(b"no picture")
    build(BuildArgs(str(root), str(tmp_path / "out"), Options(max_frames=17)), FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    size = dataset.size("train")
    names = names_of(dataset.path, "train", range(size), size)
    captions = [dataset.example("train", i)["caption_caption"] for i in range(size)]
    wanted = {"caption of b.png": "b.png", "caption of deep/a.png": "deep/a.png", "caption of 熊.png": "熊.png"}
    assert [wanted.get(caption, "") for caption in captions] == [
        names[i] if "long" not in names[i] else "" for i in range(size)
    ]
    assert [name for name in names.values() if "long" in name] == [
        "long.mp4 [0, 17)", "long.mp4 [17, 34)", "long.mp4 [34, 40)"
    ]  # fmt: skip
    lines: list[str] = []
    monkeypatch.setattr(Text, "draw", lambda self, draw, x, y, line: lines.append(line))
    contact_sheet.contact_sheet(dataset, "train")
    assert {"b.png", "deep/a.png", "熊.png", "long.mp4 [0, 17)"} <= set(lines)


def test_a_ledger_that_does_not_go_with_the_data_names_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "ledger.csv").write_text("item,split,status\na,train,accepted\nb,train,rejected\nc,val,scaled\n")
    assert names_of(tmp_path, "train", [0], 1) == {0: "a"} and names_of(tmp_path, "val", [0], 1) == {0: "c"}
    assert names_of(tmp_path, "train", [0], 2) == {} and names_of(tmp_path / "none", "train", [0], 1) == {}
    (tmp_path / "ledger.csv").write_text("something\nelse\n")
    assert names_of(tmp_path, "train", [0], 1) == {}
