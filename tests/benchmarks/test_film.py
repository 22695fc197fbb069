"""The tables and the strip of benchmarks.film, from measures and videos that are made up."""

from __future__ import annotations

import numpy as np
import pytest
import tiny
from PIL import Image

from benchmarks import film
from data_pipelines.reading.store import Dataset
from vdit.errors import UserError


def mean(value):
    return {"value": value, "interval": [value - 0.1, value + 0.1]}


def result(workdir, flops):
    way = {key: mean(20.0) for key, _ in film.COLUMNS}
    true = {key: mean(1.0) for key in ("blockiness", "motion")}
    text = {"motion": {"model": 3.0, "true": 4.0}, "blockiness": {"model": 1.1, "true": 1.0}}
    found = {key: mean(0.5) | {"chance": 0.05} for key in ("top1", "top5", "alike")}
    first = {"model": way, "repeated": way, "true": true}
    return {"workdir": workdir, "flops": flops} | {
        f"{kind} {split}": values
        for split in ("train", "val")
        for kind, values in (("first_frame", first), ("text", text | found))
    }


def test_a_row_for_every_model_and_one_for_each_floor():
    text = film.tables([result("short", 1e12), result("long", 1e13)])
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    for label in ("short (1e+12 FLOPs)", "long (1e+13 FLOPs)"):
        assert sum(label in row for row in rows) == 2 + len(film.FINDS) + 4
    assert sum(row.startswith("| repeated ") for row in rows) == sum(row.startswith("| true ") for row in rows) == 2
    assert "| 20.00 (19.90 to 20.10) |" in text and "| 0.50 (0.40 to 0.60) | 0.050 |" in text


def test_the_strip_shows_the_truth_above_what_was_made(tmp_path):
    truth = film.read_truth(Dataset(tiny.dataset()), 9, 2, lambda frames: frames.mean((1, 2)))
    assert len(truth.shots["train"].numbers) > 2 == len(truth.sampled["train"])
    own = truth.chosen("train")
    assert own.numbers == [truth.shots["train"].numbers[i] for i in (0, -1)]
    assert all(len(video) == 9 for video in own.videos)
    number = own.numbers[1]
    height, width = own.videos[1].shape[1:3]
    made = {
        ("train", kind): [np.full_like(video, shade) for video in own.videos]
        for kind, shade in (("first_frame", 40), ("text", 90))
    }
    film.write_strip(str(tmp_path / "strip.png"), [("train", number)], truth, [made])
    strip = np.asarray(Image.open(tmp_path / "strip.png"))
    assert strip.shape == (3 * height, film.SHOWN * width, 3)
    np.testing.assert_array_equal(strip[:height, -width:], own.videos[1][8])
    assert (strip[height : 2 * height] == 40).all() and (strip[2 * height :] == 90).all()
    with pytest.raises(UserError, match="--strip_shots=train:999 is none of the shots that are made"):
        film.write_strip(str(tmp_path / "strip.png"), [("train", 999)], truth, [made])


def test_true_clips_find_themselves():
    """The ceiling of what is measured of captions."""
    of_frames = lambda frames: frames.mean((1, 2))  # noqa: E731
    truth = film.read_truth(Dataset(tiny.dataset()), 9, 0, of_frames)
    for split in ("train", "val"):
        found = film.of_text(truth.shots[split].videos, split, truth, tiny.PATCH, of_frames)
        assert found["top1"]["value"] == 1 and found["motion"]["model"] == found["motion"]["true"]
    assert found["alike"]["value"] == 1


def test_too_long_clips_are_one_line():
    with pytest.raises(UserError, match="has no shot of 999 frames in split val; lower --frames"):
        film.read_shots(Dataset(tiny.dataset()), "val", 999)
