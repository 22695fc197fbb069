"""Letterbox bars: what is cut off, what is not, and what a build makes of it."""

import csv
import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from inline_engine import inline
from make_files import quadrants, write_video

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.bars import without_bars
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from vdit.io.media.media import array_media


def boxed(top: int, bottom: int, left: int, right: int, frames: int = 5, level: int = 16) -> np.ndarray:
    """Quadrants of 48 x 64 pixels between bars."""
    inside = np.stack([quadrants(48, 64, t) for t in range(frames)])
    return np.pad(inside, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=level)


@pytest.mark.parametrize("bars", [(12, 12, 0, 0), (0, 0, 9, 10), (8, 8, 8, 8), (12, 13, 0, 0)])
def test_bars_are_cut_off(bars: tuple[int, int, int, int]) -> None:
    media = without_bars(array_media(boxed(*bars), 8.0))
    assert (media.height, media.width) == (48, 64)
    assert any(note.startswith("bars cut off: 64x48 left of") for note in media.notes)
    for frame, wanted in zip(media.frames(), boxed(0, 0, 0, 0), strict=True):
        np.testing.assert_array_equal(frame.rgb(48, 64), wanted)
        np.testing.assert_allclose(frame.rgb(24, 32).mean(), wanted.mean(), atol=1)


@pytest.mark.parametrize(
    ("what", "video"),
    [
        ("no bars", boxed(0, 0, 0, 0)),
        ("grey ones", boxed(12, 12, 0, 0, level=40)),
        ("a shadow at one side", boxed(12, 0, 0, 0)),
        ("bars of unlike width", boxed(20, 6, 0, 0)),
        ("black", np.zeros((3, 48, 64, 3), np.uint8)),
        ("a small light", boxed(60, 60, 80, 80)),
        (
            "light where the bars were, in the last frame",
            np.concatenate([boxed(12, 12, 0, 0), boxed(0, 0, 0, 0).repeat(2, 1)[:, :72]]),
        ),
    ],
)
def test_what_is_no_bar_stays(what: str, video: np.ndarray) -> None:
    media = array_media(video, 8.0)
    assert without_bars(media) is media, what


def test_a_build_without_bars(tmp_path: pathlib.Path) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "boxed.mp4", list(boxed(16, 16, 0, 0, frames=9)))
    write_video(tmp_path / "in" / "whole.mp4", list(boxed(0, 0, 0, 0, frames=9)))
    for trim in (False, True):
        args = BuildArgs(str(tmp_path / "in"), str(tmp_path / f"out {trim}"), Options(trim_bars=trim))
        with inline():
            build(args, FakeEncoder())
        index = Dataset(args.out).index("train")
        assert list(zip(index.height.tolist(), index.width.tolist(), strict=True)) == [
            (48 if trim else 80, 64),
            (48, 64),
        ]
        assert (index.measures["bars"] > 0.3).tolist() == [not trim, False]
        assert index.measures["bits_per_pixel"].min() > 0
    rows = list(csv.DictReader((tmp_path / "out True" / "ledger.csv").open()))
    assert [row["shape_before"] for row in rows] == ["9x80x64", "9x48x64"]
    assert [row["status"] for row in rows] == ["scaled", "accepted"]
    assert ["bars cut off: 64x48 left of 64x80" in row["reason"] for row in rows] == [True, False]
    assert Dataset(tmp_path / "out True").meta["build"]["trim_bars"] is True
    clips = [Dataset(tmp_path / "out True").read_clip("train", i).video_TYXC.astype(int) for i in range(2)]
    assert np.abs(clips[0] - clips[1]).mean() < 3
