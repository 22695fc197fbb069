"""Measures of clips of which is known what they should be."""

import csv
import pathlib

import numpy as np
import pytest
from fake_source import FakeEncoder
from inline_engine import inline
from make_files import write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Options
from data_pipelines.media.filters import FILE_MEASURES, MEASURES
from data_pipelines.media.measures import measure
from data_pipelines.reading.store import Dataset
from vdit.io.media.opening import open_media


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture without edges, that repeats at its borders; uint8 RGB."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = sum(
        np.sin(2 * np.pi * (rng.integers(1, 4) * y / height + rng.integers(1, 4) * x / width) + rng.uniform(0, 6))
        for _ in range(6)
    )
    grey = 128 + 20 * waves
    return np.repeat(grey[..., None], 3, axis=-1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(96, 168), (168, 96), (64, 64), (160, 96)])
def test_motion_is_in_shorter_sides_a_second(height: int, width: int) -> None:
    picture = texture(height, width)
    for pixels, axis in ((0, 0), (2, 0), (2, 1)):
        video = np.stack([np.roll(picture, pixels * t, axis) for t in range(6)])
        wanted = pixels * 12.0 / min(height, width)
        assert measure(video, 12.0)["motion"] == pytest.approx(wanted, rel=0.15, abs=0.01), (pixels, axis)


def test_brightness_contrast_and_sharpness() -> None:
    board = (np.indices((64, 64)).sum(0) // 8 % 2 * 255).astype(np.uint8)
    sharp = np.repeat(np.repeat(board[..., None], 3, -1)[None], 3, 0)
    found = measure(sharp, 8.0)
    assert found["brightness"] == pytest.approx(0.5, abs=1e-3) and found["contrast"] == pytest.approx(0.5, abs=1e-3)
    soft = ((np.roll(sharp, 1, 1).astype(int) + np.roll(sharp, 1, 2) + np.roll(sharp, -1, 1) + sharp) // 4).astype(
        np.uint8
    )
    assert found["sharpness"] > 2 * measure(soft, 8.0)["sharpness"] > 0
    dark = measure(sharp // 2, 8.0)
    assert dark["brightness"] == pytest.approx(0.25, abs=0.01) and dark["contrast"] == pytest.approx(0.25, abs=0.01)
    assert dark["sharpness"] == pytest.approx(found["sharpness"] / 4, rel=0.05)


def test_bars_still_frames_and_cuts() -> None:
    picture = texture(64, 96)
    boxed = np.stack([np.roll(picture, t, 1) for t in range(4)])
    boxed[:, :8] = boxed[:, -8:] = 10
    assert measure(boxed, 8.0)["bars"] == 0.25
    boxed[:, :, :24] = 10
    assert measure(boxed, 8.0)["bars"] == pytest.approx(1 - 0.75 * 0.75)
    assert measure(np.zeros((3, 16, 16, 3), np.uint8), 8.0)["bars"] == 1
    moving = [np.roll(picture, 3 * t, 1) for t in range(4)]
    video = np.stack([*moving, moving[-1], moving[-1]])
    assert measure(video, 8.0)["still"] == pytest.approx(2 / 5, abs=1e-3)
    other = np.stack([np.full_like(picture, (200, 30, 30))] * 3)
    found = measure(np.concatenate([np.stack(moving), other, other]), 8.0)
    assert found["cuts"] == 1
    assert measure(np.stack(moving), 8.0)["cuts"] == 0


def test_an_image_neither_moves_nor_rests() -> None:
    found = measure(texture(16, 8)[None], 1.0)
    assert tuple(found) == MEASURES and (found["motion"], found["still"], found["cuts"]) == (0, 0, 0)


@pytest.mark.parametrize("size", [(8, 8), (8, 200), (200, 8), (16, 16), (24, 40)])
def test_small_and_long_frames_are_measured(size: tuple[int, int]) -> None:
    """OpenCV's flow ends the process for frames that are narrower than its patches."""
    video = np.random.default_rng(0).integers(0, 256, (5, *size, 3), np.uint8)
    assert all(np.isfinite(value) for value in measure(video, 8.0).values())


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("tree")
    for pixels in range(4):
        write_video(root / f"{pixels}.mp4", [np.roll(texture(64, 96), pixels * t, 1) for t in range(9)])
    return root


def test_measures_are_columns_of_the_index(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with inline():
        build(BuildArgs(str(tree), str(tmp_path / "out")), FakeEncoder())
    dataset = Dataset(tmp_path / "out")
    index = dataset.index("train")
    assert (
        tuple(index.measures) == (*MEASURES, *FILE_MEASURES, "duplicate")
        and (np.diff(index.measures["motion"]) > 0.1).all()
    )
    for i in range(4):
        clip = dataset.read_clip("train", i)
        assert {name: index.measures[name][i] for name in MEASURES} == measure(clip.video_TYXC, clip.fps)


def test_clips_are_rejected_by_their_measures(tree: pathlib.Path, tmp_path: pathlib.Path) -> None:
    options = Options(reject=("black", "motion<0.2", "brightness>2"))
    with inline():
        build(BuildArgs(str(tree), str(tmp_path / "out"), options), FakeEncoder())
    rows = list(csv.DictReader((tmp_path / "out" / "ledger.csv").open()))
    assert [row["status"] for row in rows] == ["rejected", "accepted", "accepted", "accepted"]
    assert rows[0]["reason"] == "not wanted: motion<0.2"
    assert (Dataset(tmp_path / "out").index("train").measures["motion"] >= 0.2).all()


def test_bits_per_pixel_tell_how_much_a_file_was_compressed(tmp_path: pathlib.Path) -> None:
    """Of a video its packets count, without sound; of a picture its file."""
    frames = [np.random.default_rng(t).integers(0, 256, (64, 96, 3), np.uint8) for t in range(9)]
    files = {crf: write_video(tmp_path / f"{crf}.mp4", frames, options={"crf": crf}) for crf in ("10", "40")}
    loud = write_video(tmp_path / "sound.mp4", frames, options={"crf": "40"}, sound=True)
    found = {name: open_media(path).bits_per_pixel for name, path in (files | {"sound": loud}).items()}
    assert found["10"] > 3 * found["40"] > 0
    assert found["sound"] == pytest.approx(found["40"], rel=0.02)
    assert found["10"] == pytest.approx(8 * files["10"].stat().st_size / (9 * 64 * 96), rel=0.05)
    Image.fromarray(frames[0]).save(tmp_path / "a.png")
    assert open_media(tmp_path / "a.png").bits_per_pixel == 8 * (tmp_path / "a.png").stat().st_size / (64 * 96)
    options = Options(reject=("bits_per_pixel < 0.5 * 16",))
    out = tmp_path.with_name(f"{tmp_path.name}-out")
    with inline():
        build(BuildArgs(str(tmp_path), str(out), options), FakeEncoder())
    index = Dataset(out).index("train")
    kept = [value for value in (*found.values(), open_media(tmp_path / "a.png").bits_per_pixel) if value >= 8]
    np.testing.assert_allclose(np.sort(index.measures["bits_per_pixel"]), np.sort(kept), rtol=1e-3)
    assert 1 <= len(kept) < 4
