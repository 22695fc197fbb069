"""A folder of files that cameras, phones and tools write: what the build makes of each, and the sampler alike."""

import csv
import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.inspecting.ledger_names import names_of
from data_pipelines.media.clip import Options
from data_pipelines.reading.store import Dataset
from vdit.io.media.clips import open_clip

CASES = pathlib.Path(__file__).parents[2] / "io" / "media" / "cases"
WANTED = {  # frames, height and width as stored; frames/s; notes
    "alpha_vp9.webm": ("9x96x96", 12, "alpha on white"),
    "apng_default.png": ("5x64x96", 10, "alpha on white"),
    "exif6.jpg": ("1x128x96", 30, "turned upright"),
    "g16_full.png": ("1x96x128", 30, ""),
    "grid_avif_named.jpg": ("1x256x384", 30, ""),
    "hflip.mp4": ("9x96x128", 24, "mirrored"),
    "mpf_stale.jpg": ("1x96x128", 30, "first of 2 pictures"),
    "pause.gif": ("49x64x64", 20, "uneven frame times put on 20 frames/s"),
    "phone3005.mp4": ("89x96x128", 30.0557, "30.056 frames/s taken for 30; last 1 kept frames trimmed"),
    "plainjpeg_first.mkv": ("25x128x192", 24, "the default of 2 video streams, number 2; last 1 kept frames trimmed"),
    "rot90.mp4": ("9x128x96", 24, "turned by 90 degrees"),
    "two_videos.mp4": ("25x128x192", 24, "the default of 2 video streams, number 2; last 1 kept frames trimmed"),
    "vflip.mp4": ("9x96x128", 24, "flipped upside down"),
    "x264_bf2.avi": ("49x120x160", 25, "last 1 kept frames trimmed"),
    "x264_remux.mp4": ("49x120x160", 25, "last 1 kept frames trimmed"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    out = tmp_path_factory.mktemp("out") / "data"
    build(BuildArgs(str(CASES), str(out), Options(fps=30)), FakeEncoder())
    return Dataset(out)


def test_what_the_ledger_says(built: Dataset) -> None:
    with (built.path / "ledger.csv").open("r") as file:
        rows = {row["item"]: row for row in csv.DictReader(file)}
    assert rows.keys() == WANTED.keys() == {path.name for path in CASES.iterdir()}
    for name, (shape, rate, notes) in WANTED.items():
        row = rows[name]
        assert (row["status"], row["shape_after"]) == ("accepted", shape), name
        assert float(row["fps_after"]) == pytest.approx(rate, rel=1e-5), name
        assert row["reason"] == "; ".join(filter(None, [notes, "no caption"])), name


def test_the_sampler_reads_the_same_pixels(built: Dataset) -> None:
    """At the rate of the clip, all frames that were stored are those that the sampler takes."""
    size = built.size("train")
    names = names_of(built.path, "train", range(size), size)
    assert sorted(names.values()) == sorted(WANTED)
    for i, name in names.items():
        stored_TYXC = built.read_clip("train", i).video_TYXC
        clip = open_clip(CASES / name, float(built.index("train").fps[i]))
        given_TYXC = clip.read(*stored_TYXC.shape[1:3])
        assert len(given_TYXC) >= len(stored_TYXC)
        np.testing.assert_array_equal(given_TYXC[: len(stored_TYXC)], stored_TYXC, err_msg=name)
