"""Videos and images written and read back."""

from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vdit.errors import UserError
from vdit.io.media.clips import read_clip, read_image
from vdit.io.media.pixels import scale
from vdit.io.video import GIVEN_COLOUR, strip, write_gif, write_mp4, write_npz, write_png


def ramp(frames: int, height: int, width: int) -> np.ndarray:
    """A smooth video, as H.264 keeps it closely."""
    t, y, x, c = np.meshgrid(*map(np.arange, (frames, height, width, 3)), indexing="ij")
    return np.uint8(128 + 60 * np.sin(t / 2 + y / 9 + x / 7) * np.ones_like(c))


def read(path) -> tuple[np.ndarray, Fraction, dict]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), stream.average_rate, dict(container.metadata), stream.codec_context.name


@pytest.mark.parametrize(("size", "scale"), [((9, 32, 48), 1), ((1, 24, 24), 1), ((5, 17, 31), 1), ((5, 16, 24), 3)])
def test_mp4_comes_back(tmp_path, size, scale):
    video = ramp(*size)
    write_mp4(tmp_path / "x.mp4", video, 12.5, scale, {"prompt": "a wave"})
    found, rate, tags, codec = read(tmp_path / "x.mp4")
    frames, height, width = size[0], size[1] * scale, size[2] * scale
    assert found.shape == (frames, height + height % 2, width + width % 2, 3)
    wanted = video.repeat(scale, 1).repeat(scale, 2).astype(int)
    assert np.abs(found[:, :height, :width] - wanted).mean() < 3
    if frames > 1:
        assert rate == Fraction(25, 2)
    assert codec == "h264"
    assert tags["prompt"] == "a wave"
    assert [p.name for p in tmp_path.iterdir()] == ["x.mp4"]


def test_what_cannot_be_written_says_so_and_leaves_nothing(tmp_path):
    (tmp_path / "x.mp4").mkdir()
    (tmp_path / "x.png").mkdir()
    for path in (tmp_path / "none" / "x.mp4", tmp_path / "x.mp4"):
        with pytest.raises(UserError, match=f"cannot write {path}: "):
            write_mp4(path, ramp(3, 16, 16), 8.0)
    for path in (tmp_path / "none" / "x.png", tmp_path / "x.png"):
        with pytest.raises(UserError, match=f"cannot write {path}: "):
            write_png(path, ramp(1, 16, 16)[0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.mp4", "x.png"]


def test_strip_shows_frames_in_order():
    video = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((9, 4, 6, 3), np.uint8)
    image = strip(video, count=3, scale=2)
    assert image.shape == (4 * 2 + 2, 3 * (6 * 2 + 2), 3)
    assert [int(image[5, x, 0]) for x in (7, 21, 35)] == [0, 4, 8]
    assert strip(video[:1], count=8).shape == (6, 8, 3)
    marked = strip(video, count=3, scale=2, given=1)
    edge = marked[0].reshape(-1, 3)
    assert marked.shape == image.shape and (edge == GIVEN_COLOUR).all(-1).sum() == len(edge) // 3


def test_png_comes_back(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    write_png(tmp_path / "x.png", image)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png"), image)
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_alpha_is_laid_on_white(tmp_path):
    Image.fromarray(np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), [[[255, 255, 255], [10, 20, 30]]])


@pytest.mark.parametrize("content", [None, b"", b"not an image", b"\x89PNG\r\n\x1a\n cut"])
def test_what_is_no_image_is_refused(tmp_path, content):
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"--image={path} cannot be read as an image") as raised:
        read_image(path)
    assert "\n" not in str(raised.value)


def test_scaling_averages_areas():
    image = np.array([[0, 100], [50, 250]], np.uint8)[..., None].repeat(3, -1)
    np.testing.assert_array_equal(scale(image, 1, 1), [[[100] * 3]])
    assert scale(image, 3, 5).shape == (3, 5, 3)


@pytest.mark.parametrize("name", ["A::B", "http:x", "%d", "ü 熊", "~x", "caf\udce9", "#a?b", "-x"])
def test_names_of_any_kind(tmp_path, monkeypatch, name):
    """Relative ones, in which FFmpeg may see a protocol or a pattern, and bytes that are no UTF-8."""
    monkeypatch.chdir(tmp_path)
    video = ramp(5, 16, 16)
    write_mp4(f"{name}.mp4", video, 8.0)
    write_gif(f"{name}.gif", video, 8.0)
    write_npz(f"{name}.npz", video, 8.0, {})
    write_png(f"{name}.png", video[0])
    assert [len(read_clip(f"{name}.{suffix}", 8.0)) for suffix in ("mp4", "gif", "npz", "png")] == [5, 5, 5, 1]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        f"{name}.{s}" for s in ("mp4", "gif", "npz", "png")
    )
