"""A program that finds subjects: its boxes are columns, and what it can do wrong is one line."""

import csv
import json
import pathlib
import sys

import numpy as np
import pytest
from fake_source import FakeEncoder
from inline_engine import inline
from make_files import grey, write_video

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.building.curation.detector import Detector, check_detector
from data_pipelines.building.curation.program import ClipRequest
from data_pipelines.media.clip import Options
from data_pipelines.media.filters import SUBJECT_MEASURES
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError

BRIGHT = """
import json, sys
import numpy as np
from PIL import Image
for line in sys.stdin:
    asked = json.loads(line)
    frame = np.asarray(Image.open(asked["frames"][len(asked["frames"]) // 2]).convert("L"))
    y, x = np.nonzero(frame > 150)
    height, width = frame.shape
    box = [int(x.min()) / width, int(y.min()) / height, (int(x.max()) + 1) / width, (int(y.max()) + 1) / height]
    print(json.dumps({"id": asked["id"], "box": box if len(x) < frame.size else None}), flush=True)
"""


@pytest.fixture
def program(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    """Writes a detector; its name."""
    monkeypatch.setenv("VDIT_CACHE", str(tmp_path / "cache"))

    def write(code: str) -> str:
        (tmp_path / "detect.py").write_text(code)
        return f"command:{sys.executable} {tmp_path / 'detect.py'}"

    return write


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    """A bright square that moves to the right; one that fills the frame."""
    (tmp_path / "tree").mkdir()
    frames = [grey(40) for _ in range(9)]
    for t, frame in enumerate(frames):
        frame[8:24, 4 * t : 4 * t + 16] = 220
    write_video(tmp_path / "tree" / "a.mp4", frames)
    write_video(tmp_path / "tree" / "b.mp4", [grey(220)] * 9)
    return tmp_path / "tree"


@pytest.mark.parametrize("engine", [inline, None])
def test_boxes_are_columns(tree: pathlib.Path, tmp_path: pathlib.Path, program, engine) -> None:
    args = BuildArgs(str(tree), str(tmp_path / "out"), detector=program(BRIGHT))
    if engine:
        with engine():
            build(args)
    else:
        build(args, FakeEncoder())
    measures = Dataset(tmp_path / "out").index("train").measures
    boxes_N4 = np.stack([measures[name] for name in SUBJECT_MEASURES], 1)
    np.testing.assert_allclose(boxes_N4[0], [16 / 64, 8 / 48, 32 / 64, 24 / 48], atol=0.07)  # frame 4 or 5 of 9
    assert np.isnan(boxes_N4[1]).all()
    rows = list(csv.DictReader((tmp_path / "out" / "ledger.csv").open()))
    assert all(f"subject by {args.detector}" in row["reason"] for row in rows)
    assert Dataset(tmp_path / "out").meta["build"]["detector"] == args.detector


def test_clips_are_rejected_by_their_subjects(tree: pathlib.Path, tmp_path: pathlib.Path, program) -> None:
    options = Options(reject=("not subject_x1 - subject_x0 > 0.1",))
    with inline():
        build(BuildArgs(str(tree), str(tmp_path / "out"), options, detector=program(BRIGHT)))
    rows = list(csv.DictReader((tmp_path / "out" / "ledger.csv").open()))
    assert [row["status"] for row in rows] == ["accepted", "rejected"]
    with inline(), pytest.raises(UserError, match="there is no 'subject_x0'; there are bars, "):
        build(BuildArgs(str(tree), str(tmp_path / "other"), Options(reject=("subject_x0 > 0.1",))))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"captions": {"a": "b"}}, 'there is no "box"'),
        ({"box": [0, 0, 1]}, "is not four numbers"),
        ({"box": [0, 0, 1, True]}, "is not four numbers"),
        ({"box": [0.5, 0, 0.2, 1]}, "is not x0, y0, x1, y1"),
        ({"box": [0, 0, 640, 480]}, "is not x0, y0, x1, y1"),
        ({"box": [0, 0, float("nan"), 1]}, "is not x0, y0, x1, y1"),
    ],
)
def test_answers_that_are_no_boxes(program, answer: dict[str, object], message: str) -> None:
    line = json.dumps({"id": "7", **answer})
    detector = Detector(program(f"input(); print({line!r}, flush=True); input()"))
    with pytest.raises(UserError, match=f"--detector=command:.* which is no line of boxes .*{message}"):
        detector(ClipRequest(7, "a.mp4", 8.0, np.zeros((2, 8, 16, 3), np.uint8), {}))
    detector.close()


def test_no_subject_is_an_answer(program) -> None:
    detector = Detector(program("""input(); print('{"id": "7", "box": null}', flush=True); input()"""))
    found = detector(ClipRequest(7, "a.mp4", 8.0, np.zeros((2, 8, 16, 3), np.uint8), {}))
    assert tuple(found) == SUBJECT_MEASURES and np.isnan(list(found.values())).all()
    detector.close()


@pytest.mark.parametrize("name", ["hf:folder", "command:", "python x.py"])
def test_names(name: str) -> None:
    with pytest.raises(UserError, match="--detector=.* should be command: and a command line"):
        check_detector(name)
