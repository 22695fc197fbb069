"""Pictures of every kind: what they show, and which of several pictures in a file counts."""

import io
import os
import pathlib
import struct

import numpy as np
import pillow_heif
import pytest
from make_files import quadrants, write_video
from make_heif import write_grid
from PIL import Image

from vdit.io.media.clips import read_image
from vdit.io.media.kinds import PICTURE_SUFFIXES
from vdit.io.media.media import Unreadable
from vdit.io.media.opening import open_media
from vdit.io.media.timing import plan_timing

CASES = pathlib.Path(__file__).parent / "cases"
OF_CASES = (220, 30, 30), (30, 180, 30), (30, 30, 220), (230, 230, 60)
RED, GREEN, BLUE, WHITE = (200, 30, 30), (30, 180, 30), (30, 30, 200), (220, 220, 220)


def corners_are(picture_YXC: np.ndarray, colours=(RED, GREEN, BLUE, WHITE), tolerance: int = 14) -> None:
    y, x = (side // 4 for side in picture_YXC.shape[:2])
    found = [picture_YXC[y, x], picture_YXC[y, -x], picture_YXC[-y, -x], picture_YXC[-y, x]]
    np.testing.assert_allclose(np.array(found, int), colours, atol=tolerance)


def unreadable(path: pathlib.Path) -> str:
    with pytest.raises(Unreadable) as caught:
        list(open_media(path).frames())
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif", "a.jp2", "a.ppm", "a.avif", "a.qoi"]
)
@pytest.mark.filterwarnings(r"ignore:.*:UserWarning:PIL\.")
def test_formats(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(quadrants(48, 64)).save(path)
    assert path.suffix in PICTURE_SUFFIXES
    media = open_media(path)
    assert (media.height, media.width, len(media.times)) == (48, 64, 1)
    corners_are(read_image(path))
    wrong = path.rename(tmp_path / "wrong.mp4")
    corners_are(read_image(wrong))
    wrong.write_bytes(wrong.read_bytes()[:40])
    assert "picture" in unreadable(wrong) and "video" not in unreadable(wrong)


def test_heic(tmp_path: pathlib.Path) -> None:
    pillow_heif.from_pillow(Image.fromarray(quadrants(48, 64))).save(tmp_path / "a.heic", quality=90)
    corners_are(read_image(tmp_path / "a.heic"))


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_tiles_are_put_together(tmp_path: pathlib.Path, suffix: str) -> None:
    """As cameras store pictures: four tiles, of which no first one may pass for the picture."""
    tiles = [np.full((64, 64, 3), colour, np.uint8) for colour in (RED, GREEN, WHITE, BLUE)]
    path = write_grid(tmp_path / f"a.{suffix}", tiles, rows=2, columns=2)
    media = open_media(path)
    assert (media.height, media.width) == (128, 128)
    corners_are(read_image(path))
    corners_are(read_image(path.rename(tmp_path / "renamed.jpg")))


@pytest.mark.parametrize("suffix", ["avif", "heic"])
def test_pictures_of_phones_are_upright(tmp_path: pathlib.Path, suffix: str) -> None:
    """A quarter counter-clockwise brings the top right corner to the top left."""
    tiles = [np.full((64, 64, 3), colour, np.uint8) for colour in (RED, GREEN, GREEN, WHITE, BLUE, BLUE)]
    path = write_grid(tmp_path / f"a.{suffix}", tiles, rows=2, columns=3, quarters=1)
    media = open_media(path)
    assert (media.height, media.width) == (192, 128)
    corners_are(read_image(path), (GREEN, BLUE, WHITE, RED))


def test_the_case_of_tiles() -> None:
    media = open_media(CASES / "grid_avif_named.jpg")
    assert (media.height, media.width) == (256, 384)
    corners_are(read_image(CASES / "grid_avif_named.jpg"), OF_CASES)


def test_a_stale_index_of_further_pictures() -> None:
    media = open_media(CASES / "mpf_stale.jpg")
    assert len(media.times) == 1 and media.notes == ("first of 2 pictures",)
    corners_are(read_image(CASES / "mpf_stale.jpg"), OF_CASES)


def test_a_gain_map_is_no_frame(tmp_path: pathlib.Path) -> None:
    """A JPEG with a second, smaller picture behind it, as phones write for brighter screens."""
    first, second = Image.fromarray(quadrants(48, 64)), Image.fromarray(quadrants(12, 16)).convert("L")
    first.save(tmp_path / "a.mpo", format="MPO", save_all=True, append_images=[second], quality=95)
    path = (tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    media = open_media(path)
    assert len(list(media.frames())) == len(media.times) == 1 and media.notes == ("first of 2 pictures",)
    corners_are(read_image(path))


def test_pages_are_no_frames(tmp_path: pathlib.Path) -> None:
    pages = [Image.fromarray(quadrants(48, 64, shift)) for shift in (0, 9)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert open_media(tmp_path / "a.tif").notes == ("first of 2 pictures",)
    corners_are(read_image(tmp_path / "a.tif"))


def test_the_preview_of_a_raw_photo_is_not_the_photo(tmp_path: pathlib.Path) -> None:
    Image.fromarray(quadrants(48, 64)).save(tmp_path / "a.tif", tiffinfo={254: 1})
    assert "a raw photo" in unreadable(tmp_path / "a.tif")


@pytest.mark.parametrize("frames", [1, 5])
def test_the_default_image_of_an_animated_png_is_no_frame(tmp_path: pathlib.Path, frames: int) -> None:
    pictures = [Image.fromarray(np.full((16, 16, 3), 30 * i, np.uint8)) for i in range(frames)]
    default = Image.fromarray(np.full((16, 16, 3), 255, np.uint8))
    default.save(tmp_path / "a.png", save_all=True, append_images=pictures, default_image=True, duration=100)
    media = open_media(tmp_path / "a.png")
    assert [int(frame.rgb(1, 1)[0, 0, 0]) for frame in media.frames()] == [30 * i for i in range(frames)]
    assert len(media.times) == frames and int(read_image(tmp_path / "a.png")[0, 0, 0]) == 0


def test_the_case_of_a_default_image() -> None:
    assert [int(frame.rgb(1, 1)[0, 0, 0]) for frame in open_media(CASES / "apng_default.png").frames()] == [
        20, 40, 60, 80, 100
    ]  # fmt: skip


def test_sixteen_bits(tmp_path: pathlib.Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint16) * 257, (48, 1))
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp).save(tmp_path / "a.tif")
    Image.fromarray(ramp.astype(np.float32) / 65535).save(tmp_path / "b.tif")
    for name in ("a.png", "a.tif", "b.tif"):
        np.testing.assert_allclose(read_image(tmp_path / name)[..., 1].astype(int), ramp // 257, atol=1, err_msg=name)
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "c.tif")
    assert "neither 16 bits nor 0 to 1" in unreadable(tmp_path / "c.tif")
    left, right = read_image(CASES / "g16_full.png")[48, [4, -4]].astype(int)
    assert left.max() < 20 and right.min() > 235


def test_kinds_that_cannot_be_read_say_so(tmp_path: pathlib.Path) -> None:
    for name, content in (("a.bmp", b"no picture"), ("a.heic", b"\0" * 99), ("a.tif", b"text")):
        (tmp_path / name).write_bytes(content)
        assert unreadable(tmp_path / name) == "not a readable picture: its content is of no known kind"
    os.mkfifo(tmp_path / "fifo.png")
    assert unreadable(tmp_path / "fifo.png") == "a FIFO, not a file"
    assert unreadable(tmp_path) == "a folder, not a file"
    assert unreadable(tmp_path / "none.png") == "No such file or directory"
    video = write_video(tmp_path / "v.mp4", [quadrants(32, 48)] * 3).rename(tmp_path / "v.bmp")
    corners_are(read_image(video))


def test_a_broken_exif_orientation_counts_as_none(tmp_path: pathlib.Path) -> None:
    for value in (0, 9, 77):
        exif = Image.Exif()
        exif[0x0112] = value
        buffer = io.BytesIO()
        Image.fromarray(quadrants(48, 64)).save(buffer, "JPEG", exif=exif, quality=95)
        (tmp_path / "a.jpg").write_bytes(buffer.getvalue())
        corners_are(read_image(tmp_path / "a.jpg"))
    assert struct.calcsize("=5i") == 20  # of a display matrix


@pytest.mark.parametrize("major", [b"msf1", b"hevc", b"heic", b"mif1"])
@pytest.mark.parametrize("handler", [b"pict", b"vide"])
def test_a_sequence_in_heif_is_a_video(tmp_path: pathlib.Path, major: bytes, handler: bytes) -> None:
    """Of H.265 with B-frames, in the file of a video whose brands and handler say that it is a sequence of pictures."""
    pictures = [quadrants(64, 96, 4 * shift) for shift in range(12)]
    options = {"x265-params": "log-level=none:bframes=2:crf=2", "preset": "ultrafast"}
    data = write_video(tmp_path / "a.mp4", pictures, 25, "libx265", "yuv420p", options=options).read_bytes()
    size = int.from_bytes(data[:4], "big")
    brands = major + bytes(4) + b"msf1hevc" + 4 * b"heic"
    data = data[:8] + brands[: size - 8] + data[size:]
    (tmp_path / "a.heics").write_bytes(data.replace(b"hdlr" + bytes(8) + b"vide", b"hdlr" + bytes(8) + handler))
    media = open_media(tmp_path / "a.heics")
    assert plan_timing(media, 0).fps == pytest.approx(25) and len(media.times) == 12
    for number, frame in enumerate(media.frames()):
        errors = [np.abs(frame.rgb(64, 96).astype(int) - picture).mean() for picture in pictures]
        assert np.argmin(errors) == number and errors[number] < 5


def test_a_still_picture_that_says_it_is_a_sequence_is_read(tmp_path: pathlib.Path) -> None:
    pillow_heif.from_pillow(Image.fromarray(quadrants(64, 96))).save(tmp_path / "a.heic", quality=95)
    data = (tmp_path / "a.heic").read_bytes()
    assert data[4:12] == b"ftypheic" and b"heic" in data[16:32]
    place = data.index(b"heic", 16)
    (tmp_path / "b.heic").write_bytes(data[:place] + b"msf1" + data[place + 4 :])
    corners_are(read_image(tmp_path / "b.heic"))
