"""Every file of a source folder leaves a trace, and what cannot be read costs itself."""

import csv
import os
import pathlib
import unicodedata

import pytest
from fake_source import FakeEncoder
from make_files import grey, quadrants, write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.sources import captions, folder
from data_pipelines.sources.tree import list_tree
from vdit.errors import UserError


def picture(path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(quadrants(16, 16)).save(path, format="PNG")


def reasons(root: pathlib.Path) -> dict[str, str]:
    """Why things of the tree are not read."""
    return {each.item: each.data for each in folder.inputs(str(root), Options()) if not each.path}


def read(root: pathlib.Path) -> list[str]:
    return [each.item for each in folder.inputs(str(root), Options()) if each.path]


def test_names_that_videos_and_pictures_have(tmp_path: pathlib.Path) -> None:
    names = (
        "a.mts b.3gp c.ts d.MPEG e.heic f.avif g.bmp h.TIF i.m2ts j.wmv k.flv l.ogv m.jfif n.mpg o.vob p.mxf".split()
    )
    for name in (*names, "x.psd", "y", "z.psd"):
        (tmp_path / name).write_bytes(b"1")
    assert read(tmp_path) == sorted(names)
    assert reasons(tmp_path) == {
        "*": "1 file not read: neither a video nor a picture by name",
        "*.psd": "2 files not read: neither a video nor a picture by name",
    }


def test_captions_beside_nothing(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "a.png")
    for name in ("a.txt", "b.txt", "readme.txt"):
        (tmp_path / name).write_text("x")
    assert reasons(tmp_path) == {"*.txt": "2 files not read: beside no video or picture of that name"}


def test_captions_whose_names_are_written_otherwise(tmp_path: pathlib.Path) -> None:
    """Accents composed by one system and decomposed by another, and case; exact names come first."""
    composed, decomposed = (unicodedata.normalize(form, "Bär") for form in ("NFC", "NFD"))
    for name in (f"{composed}.png", "B.png", "c.png", "C.png", "d.png"):
        picture(tmp_path / name)
    for name in (f"{decomposed}.txt", "b.TXT", "c.txt", "d.png.txt"):
        (tmp_path / name).write_text(f"of {unicodedata.normalize('NFC', name)}")
    found = {each.item: each.captions["caption"] for each in folder.inputs(str(tmp_path), Options()) if each.path}
    wanted = {f"{composed}.png": "of Bär.txt", "B.png": "of b.TXT", "c.png": "of c.txt", "C.png": ""}
    assert found == wanted | {"d.png": "of d.png.txt"}
    assert reasons(tmp_path) == {}


def test_links_to_folders_are_followed_once(tmp_path: pathlib.Path) -> None:
    root = tmp_path / "root"
    picture(root / "real" / "a.png")
    picture(tmp_path / "outside" / "deep" / "b.png")
    (root / "linked").symlink_to(tmp_path / "outside")
    (root / "again").symlink_to(root / "real")
    (root / "real" / "loop").symlink_to(root)
    (tmp_path / "outside" / "deep" / "loop").symlink_to(tmp_path / "outside")
    (root / "nowhere.mp4").symlink_to(tmp_path / "gone.mp4")
    (root / "c.png").symlink_to(tmp_path / "outside" / "deep" / "b.png")
    assert read(root) == ["c.png", "linked/deep/b.png", "real/a.png"]
    again = "a link to a folder that is read already"
    assert reasons(root) == {
        "again": again,
        "real/loop": again,
        "linked/deep/loop": again,
        "nowhere.mp4": "a link that leads nowhere",
    }


def test_links_as_source_and_out(tmp_path: pathlib.Path) -> None:
    """Also one that leads to where nothing is yet."""
    picture(tmp_path / "real" / "a.png")
    (tmp_path / "source").symlink_to(tmp_path / "real")
    (tmp_path / "empty").mkdir()
    for name, target in (("one", "empty"), ("two", "later")):
        (tmp_path / name).symlink_to(tmp_path / target)
        build(BuildArgs(str(tmp_path / "source"), str(tmp_path / name)), FakeEncoder())
        assert (tmp_path / name).is_symlink() and (tmp_path / target / "vdit.json").exists()


def test_what_is_no_file(tmp_path: pathlib.Path) -> None:
    """Opening a FIFO would wait for ever: as a clip, a caption or a table it costs itself."""
    picture(tmp_path / "a.png")
    for name in ("p0.txt", "captions.csv", "b.mp4", "a.txt"):
        os.mkfifo(tmp_path / name)
    (tmp_path / "c.txt").symlink_to("/dev/zero")
    picture(tmp_path / "c.png")
    assert read(tmp_path) == ["a.png", "c.png"]
    fifo = "a FIFO, not a file"
    assert reasons(tmp_path) == {
        **dict.fromkeys(["p0.txt", "captions.csv", "b.mp4", "a.txt"], fifo),
        "c.txt": "a device, not a file",
    }


def test_a_folder_without_permission(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made here."""
    picture(tmp_path / "a.png")
    picture(tmp_path / "locked" / "b.png")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).rstrip("/").endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert read(tmp_path) == ["a.png"]
    assert reasons(tmp_path) == {"locked": "a folder that cannot be read (Permission denied)"}
    (tmp_path / "locked" / "locked").mkdir()
    with pytest.raises(UserError, match=r"gives nothing to read: Permission denied"):
        folder.inputs(str(tmp_path / "locked"), Options())


def sparse(path: pathlib.Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def test_captions_that_cannot_be_read_cost_themselves(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abcde":
        picture(tmp_path / f"{name}.png")
    sparse(tmp_path / "a.txt", 10 << 30)
    (tmp_path / "b.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "c.txt").write_bytes("Bär".encode("latin-1"))
    (tmp_path / "d.txt").write_text("fine")
    (tmp_path / "e.txt").write_text("secret")
    sparse(tmp_path / "metadata.csv", 2 << 30)
    monkeypatch.setattr("vdit.io.storage.remote.open_file", refusing("e.txt", folder_open()))
    listed = {each.item: each for each in folder.inputs(str(tmp_path), Options())}
    assert {name: listed[f"{name}.png"].captions["caption"] for name in "abcde"} == {
        **dict.fromkeys("abce", ""),
        "d": "fine",
    }
    assert listed["a.png"].notes == ("caption left out (a.txt: larger than 1 MiB)",)
    assert "b.txt is not UTF-8 text" in listed["b.png"].notes[0] and "c.txt is not UTF-8" in listed["c.png"].notes[0]
    assert listed["d.png"].notes == () and listed["e.png"].notes == ("caption left out (e.txt: Permission denied)",)
    assert listed["metadata.csv"].data == "a caption table that cannot be read: larger than 1024 MiB"


def folder_open():
    from vdit.io.storage import remote

    return remote.open_file


def refusing(name: str, opened):
    def open_file(path, mode):
        if path.endswith(name):
            raise PermissionError(13, "Permission denied")
        return opened(path, mode)

    return open_file


def test_hidden_files_are_counted_and_litter_is_not(tmp_path: pathlib.Path) -> None:
    picture(tmp_path / "a.png")
    for name in (".DS_Store", "._a.png", "Thumbs.db", ".one.png"):
        (tmp_path / name).touch()
    picture(tmp_path / ".git" / "b.png")
    assert read(tmp_path) == ["a.png"] and reasons(tmp_path) == {".*": "2 hidden files are not read"}


def test_names_of_any_bytes(tmp_path: pathlib.Path) -> None:
    """No UTF-8, what fsspec takes for a chain, blanks, signs of shells: the build takes all and says their names."""
    root = tmp_path / "~odd ::"
    root.mkdir()
    names = [
        b"caf\xe9.png",
        b"A::B.png",
        b"a b.png",
        "Bär 熊.png".encode(),
        b"~tilde.png",
        b"%s $x'\".png",
        b"#?&*.png",
    ]
    for i, name in enumerate(names):
        Image.fromarray(quadrants(16, 16, i)).save(os.path.join(os.fsencode(root), name), format="PNG")
    movie = os.path.join(os.fsencode(root), b"v\xff::1.mp4")
    write_video(tmp_path / "v.mp4", [grey(50)] * 5).rename(os.fsdecode(movie))
    with open(os.path.join(os.fsencode(root), b"caf\xe9.txt"), "w") as file:
        file.write("coffee")
    out = tmp_path / "out"
    build(BuildArgs(str(root), str(out)), FakeEncoder())
    with (out / "ledger.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["item"]: row["status"] for row in csv.DictReader(file)}
    shown = {name.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode() for name in names}
    assert rows == dict.fromkeys([*shown, "v\\udcff::1.mp4"], "accepted")
    listed = {each.item: each.captions["caption"] for each in folder.inputs(str(root), Options())}
    assert listed["caf\\udce9.png"] == "coffee"


def test_a_table_may_name_bytes_that_are_no_utf8(tmp_path: pathlib.Path) -> None:
    """As `json.dumps(os.listdir())` writes them."""
    Image.fromarray(quadrants(16, 16)).save(os.path.join(os.fsencode(tmp_path), b"caf\xe9.png"), format="PNG")
    (tmp_path / "m.jsonl").write_text('{"file": "caf\\udce9.png", "text": "coffee"}')
    (each,) = folder.inputs(str(tmp_path), Options())
    assert each.captions == {"caption": "coffee"} and os.path.exists(each.path)
    assert captions.KIND == "caption"


def test_an_empty_folder_says_what_is_in_it(tmp_path: pathlib.Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(UserError, match=r"gives nothing to read: it is empty .*a.mp4: a FIFO, not a file"):
        folder.inputs(str(tmp_path), Options())
    assert list_tree(str(tmp_path)).sizes == {}
