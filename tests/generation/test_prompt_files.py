"""What lines of a file of prompts may open: files below its folder, or below --prompt_files; no URLs."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import numpy as np
import pytest
from make_files import grey, quadrants, write_video
from PIL import Image

from vdit.errors import UserError
from vdit.generation.prompts import SampleRequest, read_conditioning, read_sample_requests
from vdit.patches import Patch


def samples(path: Path, *lines: dict, files: str = "", **defaults) -> list[SampleRequest]:
    path.write_text("\n".join(map(json.dumps, lines)))
    return read_sample_requests(path, defaults, path.parent, files)


def refused(path: Path, line: dict, files: str = "") -> str:
    with pytest.raises(UserError) as caught:
        samples(path, line, files=files)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    folder = tmp_path / "here"
    (folder / "deep").mkdir(parents=True)
    for path in (folder / "a.png", folder / "deep" / "b.png", tmp_path / "outside.png"):
        Image.fromarray(quadrants(32, 32)).save(path)
    return folder


def test_files_are_found_from_the_folder_of_the_prompts(here: Path) -> None:
    lines = [{"image": "a.png"}, {"last": str(here / "deep/b.png")}, {"reference": "a.png,deep/../deep/b.png"}]
    found = samples(here / "p.jsonl", *lines)
    assert (found[0].image, found[1].last) == (str(here / "a.png"), str(here / "deep/b.png"))
    assert found[2].reference == f"{here}/a.png,{here}/deep/../deep/b.png"
    assert read_conditioning(found[0], Patch(), 8.0).head.shape == (1, 32, 32, 3)
    assert len(read_conditioning(found[2], Patch(), 8.0).references) == 2


@pytest.mark.parametrize("name", ["image", "last", "head", "tail", "edit", "reference"])
@pytest.mark.parametrize(
    "value", ["../outside.png", "/etc/hostname", "a/../../outside.png", "link.png", "folder/b.png"]
)
def test_files_elsewhere_are_refused(here: Path, name: str, value: str) -> None:
    (here / "link.png").symlink_to(here.parent / "outside.png")
    (here / "folder").symlink_to("/etc")
    message = refused(here / "p.jsonl", {name: value})
    assert f"line 1 of --prompts={here}/p.jsonl: {name}={value!r} does not lie below" in message
    assert "--prompt_files" in message


def test_every_part_of_a_list_is_looked_at(here: Path) -> None:
    assert "connect='../b.mp4'" in refused(here / "p.jsonl", {"connect": "a.mp4,../b.mp4"})
    assert "reference='/x'" in refused(here / "p.jsonl", {"reference": "a.png,/x"})
    assert "mask='../m.png'" in refused(here / "p.jsonl", {"edit": "a.mp4", "mask": "../m.png"})
    (box,) = samples(here / "p.jsonl", {"edit": "a.mp4", "mask": "0,0,8,8"})
    assert box.mask == "0,0,8,8"


def test_another_folder_can_be_allowed(here: Path) -> None:
    (found,) = samples(here / "p.jsonl", {"image": "../outside.png"}, files=str(here.parent))
    assert read_conditioning(found, Patch(), 8.0).head.shape == (1, 32, 32, 3)
    assert "does not lie below" in refused(here / "p.jsonl", {"image": "a.png"}, files=str(here / "deep"))


def test_flags_may_name_any_file(here: Path) -> None:
    """They are the user's own words; a file of prompts may come from anybody."""
    (found,) = samples(here / "p.jsonl", {"prompt": "x"}, image=str(here.parent / "outside.png"))
    assert read_conditioning(found, Patch(), 8.0).head.shape == (1, 32, 32, 3)


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtmp", "concat", "file"])
def test_no_address_is_opened(here: Path, scheme: str) -> None:
    """A listener hears nothing, neither of prompts nor of flags."""
    heard = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)

        def listen() -> None:
            with contextlib.suppress(TimeoutError):
                heard.append(server.accept())

        thread = threading.Thread(target=listen)
        thread.start()
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/a.png"
        for name in ("image", "head"):
            assert f"{name}={url!r} does not lie below" in refused(here / "p.jsonl", {name: url}, files="/")
            with pytest.raises(UserError, match="is a URL"):
                read_conditioning(SampleRequest(**{name: url}), Patch(), 8.0)
        thread.join()
    assert not heard


@pytest.mark.parametrize("value", ["a\0.png", "x" * 5000 + "/y.png"])
def test_names_that_are_none(here: Path, value: str) -> None:
    """Refused where they are read, or where the file is opened; never a traceback."""
    try:
        (found,) = samples(here / "p.jsonl", {"image": value})
    except UserError as error:
        assert "line 1" in str(error)
    else:
        with pytest.raises(UserError, match="--image="):
            read_conditioning(found, Patch(), 8.0)


def test_marks_and_line_ends(tmp_path: Path) -> None:
    """A byte order mark is no mistake, and U+2028 and U+0085 inside of strings end no line."""
    prompts = ["one\u2028two", "one\u0085two", "one\u2029"]
    text = "\r\n".join(json.dumps({"prompt": prompt}, ensure_ascii=False) for prompt in prompts)
    (tmp_path / "p.jsonl").write_text("\ufeff" + text, encoding="utf-8", newline="")
    assert [sample.prompt for sample in read_sample_requests(tmp_path / "p.jsonl", {}, tmp_path)] == prompts


def test_only_the_frames_that_are_taken_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To connect clips takes the end of one and the start of the other; a --head that is too long is not decoded."""
    path = write_video(tmp_path / "a.mp4", [grey(10 + 4 * i) for i in range(40)], 8)
    given = read_conditioning(SampleRequest(connect=f"{path},{path}", frames=17), Patch(), 8.0)
    levels = [((part.mean(axis=(1, 2, 3)) - 10) / 4).round().astype(int).tolist() for part in (given.head, given.tail)]
    assert levels == [[39], [0, 1, 2, 3]] or levels == [list(range(35, 40)), [0, 1, 2, 3]]
    monkeypatch.setattr("vdit.io.media.videos.Scaler.__call__", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match="--head have 37 frames, the video has 17; raise --frames"):
        read_conditioning(SampleRequest(head=str(path), frames=17), Patch(), 8.0)


def test_what_is_read_is_upright_and_in_order() -> None:
    cases = Path(__file__).parents[1] / "io" / "media" / "cases"
    upright = read_conditioning(SampleRequest(image=str(cases / "exif6.jpg")), Patch(), 8.0).head[0]
    turned = read_conditioning(SampleRequest(edit=str(cases / "rot90.mp4")), Patch(), 24.0)
    assert upright.shape == (128, 96, 3) and (turned.height, turned.width) == (128, 96)
    for picture in (upright, turned.edited[4]):  # yellow, red, green, blue from the top left clockwise
        assert (picture[16, 16] > 128).tolist() == [True, True, False]
        assert (picture[16, -16] > 128).tolist() == [True, False, False]
    grey16 = read_conditioning(SampleRequest(image=str(cases / "g16_full.png")), Patch(), 8.0).head[0]
    assert np.diff(grey16[48, ::8, 0].astype(int)).min() > 0


def test_a_model_of_one_size_makes_that_size(tmp_path):
    """Of a photograph too, if its aspect ratio is near; else one line says which size would stretch it."""
    for name, size in (("film", (1280, 720)), ("square", (700, 700))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    size = (64, 112)
    plain = read_conditioning(SampleRequest(), Patch(4, 16, 16), 12.0, size)
    film = read_conditioning(SampleRequest(image=str(tmp_path / "film.png")), Patch(4, 16, 16), 12.0, size)
    assert (plain.height, plain.width) == (film.height, film.width) == size and film.head.shape == (1, *size, 3)
    with pytest.raises(UserError, match="--size=112x64 would stretch --image of 700x700 by 1.75"):
        read_conditioning(SampleRequest(image=str(tmp_path / "square.png")), Patch(4, 16, 16), 12.0, size)
    chosen = SampleRequest(image=str(tmp_path / "square.png"), size="64x64")
    assert read_conditioning(chosen, Patch(4, 16, 16), 12.0, size).head.shape == (1, 64, 64, 3)
