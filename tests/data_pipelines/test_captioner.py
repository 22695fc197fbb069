"""A program that captions clips: what it is asked, what becomes of its answers, and every way it can fail."""

import csv
import json
import pathlib
import sys
import textwrap

import numpy as np
import pytest
from fake_source import FakeEncoder
from inline_engine import inline
from make_files import quadrants, write_video

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.curation.captioner import Captioner, check_captioner
from data_pipelines.building.curation.program import ClipRequest
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError

GOOD = """
import json, sys
from PIL import Image
for line in sys.stdin:
    asked = json.loads(line)
    open(LOG, "a").write(line)
    pictures = [Image.open(path).size for path in asked["frames"]]
    width, height = pictures[0]
    captions = {"short": asked["item"], "detailed": f"{len(pictures)} frames of {width}x{height}"}
    print(json.dumps({"id": asked["id"], "captions": captions}), flush=True)
"""


@pytest.fixture
def program(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a captioner; its name."""
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))

    def write(code: str) -> str:
        path = tmp_path / "caption me.py"
        path.write_text(f"LOG = {str(tmp_path / 'log')!r}\n{textwrap.dedent(code)}")
        return f"command:{sys.executable} '{path}'"

    return write


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "tree").mkdir()
    for i in range(3):
        write_video(tmp_path / "tree" / f"{i}.mp4", [quadrants(24, 32, i + t) for t in range(13)])
    return tmp_path / "tree"


def answering(number: int, captions: dict[str, object]) -> str:
    """A program that answers this to whatever it is asked."""
    line = json.dumps({"id": str(number), "captions": captions})
    return f"input(); print({line!r}, flush=True); input()"


def request(number: int = 7) -> ClipRequest:
    return ClipRequest(number, "a.mp4", 8.0, np.full((2, 8, 16, 3), number, np.uint8), {"caption": "old"})


@pytest.mark.parametrize("engine", [inline, None])
def test_a_build_takes_its_captions(tree: pathlib.Path, tmp_path: pathlib.Path, program, engine) -> None:
    args = BuildArgs(str(tree), str(tmp_path / "out"), captioner=program(GOOD))
    if engine:
        with engine():
            build(args)
    else:
        build(args, FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    assert dataset.meta["captions"] == ["detailed", "short"]
    for i in range(3):
        example = dataset.example("train", i)
        assert (example["caption_short"], example["caption_detailed"]) == (f"{i}.mp4", "8 frames of 32x24")
        assert len(example["text_detailed"]) == 4
    rows = list(csv.DictReader((tmp_path / "out" / "ledger.csv").open()))
    assert all(f"captions by {args.captioner}" in row["reason"] and "no caption" not in row["reason"] for row in rows)
    assert dataset.meta["build"]["captioner"] == args.captioner
    with inline():
        assert build(args) is None  # it is there
        with pytest.raises(UserError, match="is a data set with captioner"):
            build(BuildArgs(str(tree), str(tmp_path / "out"), captioner="command:other"))


def test_answers_are_kept_by_clip_pictures_and_program(tmp_path: pathlib.Path, program) -> None:
    name = program(GOOD)
    for _ in range(2):
        captioner = Captioner(name)
        assert captioner(request(7)) == captioner(request(7)) == {"detailed": "2 frames of 16x8", "short": "a.mp4"}
        captioner.close()
    captioner = Captioner(name)
    captioner(ClipRequest(7, "a.mp4", 8.0, np.zeros((1, 8, 8, 3), np.uint8), {}))
    captioner.close()
    other = Captioner(name.replace("command:", "command:env "))
    other(request(7))
    other.close()
    assert len((tmp_path / "log").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys; sys.exit('no weights')", "ended with status 1 at a.mp4: no weights"),
        ("import os; input(); os.abort()", "ended with status -6 at a.mp4"),
        ("input(); print('garbage', flush=True); input()", r"answers b'garbage..' for a.mp4, which is no line"),
        ("input(); print('[1]', flush=True); input()", "which is no line of captions"),
        ('input(); print(\'{"id": "8", "captions": {"a": "b"}}\', flush=True); input()', "\"id\" is not '7'"),
        ('input(); print(\'{"id": "7", "captions": {}}\', flush=True); input()', 'there are no "captions"'),
        (
            'input(); print(\'{"id": "7", "captions": {"a b": "c"}}\', flush=True); input()',
            "'a b' is no text of a kind",
        ),
        ('input(); print(\'{"id": "7", "captions": {"a": "\\\\ud800"}}\', flush=True); input()', "surrogates not"),
        ("input(); print('[' * 100000, flush=True); input()", "which is no line of captions"),
        ("import sys\nwhile True: sys.stdout.write('x' * 65536)", "answers with more than 1048576 bytes"),
        ("import time; time.sleep(300)", "gives no answer for a.mp4 within 2 s"),
    ],
)
def test_programs_that_fail_are_one_line(program, code: str, message: str) -> None:
    captioner = Captioner(program(code), answer=2 if "within 2 s" in message else 300)  # others may start slowly
    with pytest.raises(UserError, match=message) as caught:
        captioner(request())
    assert "\n" not in str(caught.value) and "what is done is kept" in str(caught.value)
    captioner.close()


def test_kinds_must_not_change(program) -> None:
    code = """
    import json
    for kind in ("a", "b"):
        print(json.dumps({"id": json.loads(input())["id"], "captions": {kind: "x"}}), flush=True)
    """
    captioner = Captioner(program(code))
    captioner(request(1))
    with pytest.raises(UserError, match=r"gives a.mp4 the kinds \['b'\], and \['a'\] before"):
        captioner(request(2))
    captioner.close()


def test_what_is_done_is_kept(tree: pathlib.Path, tmp_path: pathlib.Path, program, monkeypatch) -> None:
    """A program that dies at the third clip: the next build asks for the third one only."""
    monkeypatch.setattr("data_pipelines.building.jobs.jobs.JOB_INPUTS", 1)
    args = BuildArgs(
        str(tree), str(tmp_path / "out"), captioner=program(GOOD + "    if len(open(LOG).readlines()) == 2: break\n")
    )
    with inline():
        with pytest.raises(UserError, match="ended with status 0 at"):
            build(args)
        program(GOOD)
        build(args)
    items = [line.split('"item": ')[1][:7] for line in (tmp_path / "log").read_text().splitlines()]
    assert sorted(items) == ['"0.mp4"', '"1.mp4"', '"2.mp4"']


@pytest.mark.parametrize("name", ["hf:no/such/folder", "command:", "command: ", "command:'a", "python x.py"])
def test_names(name: str) -> None:
    with pytest.raises(UserError, match="--captioner="):
        check_captioner(name)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(UserError, match="--captioner=command:/no/such/program cannot be started .No such file"):
        Captioner("command:/no/such/program")(request())
