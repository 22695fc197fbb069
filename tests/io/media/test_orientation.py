"""Mirrored and turned pictures and videos, read as a player shows them."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest
from make_files import quadrants, write_video
from PIL import Image, ImageOps

from vdit.io.media.clips import read_clip, read_image
from vdit.io.media.opening import open_media
from vdit.io.media.pixels import describe, orientation_of_matrix, upright

CASES = pathlib.Path(__file__).parent / "cases"
ONE = 1 << 16
MATRICES = {  # (a, b, c, d): the picture's point (x, y) is shown at (a x + c y, b x + d y)
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def shown(picture_YXC: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """A picture under a display matrix, pixel by pixel."""
    height, width = picture_YXC.shape[:2]
    y, x = np.mgrid[:height, :width]
    rows, columns = b * x + d * y, a * x + c * y
    rows, columns = rows - rows.min(), columns - columns.min()
    out = np.zeros((rows.max() + 1, columns.max() + 1, 3), np.uint8)
    out[rows, columns] = picture_YXC
    return out


@pytest.mark.parametrize("number", range(1, 9))
def test_every_orientation(tmp_path: pathlib.Path, number: int) -> None:
    """A matrix, the EXIF number of it, Pillow's own transposing and the reader say the same."""
    picture = quadrants(16, 24)
    picture[0, 0] = 7
    a, b, c, d = MATRICES[number]
    matrix = np.array([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30], np.int32).tobytes()
    assert orientation_of_matrix(matrix) == number
    np.testing.assert_array_equal(upright(picture, number), shown(picture, a, b, c, d))
    exif = Image.Exif()
    exif[0x0112] = number
    for suffix in ("png", "tif"):
        Image.fromarray(picture).save(tmp_path / f"a.{suffix}", exif=exif)
        with Image.open(tmp_path / f"a.{suffix}") as image:
            np.testing.assert_array_equal(ImageOps.exif_transpose(image), upright(picture, number))
        np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}"), upright(picture, number))
    assert bool(describe(number)) == (number > 1)


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_display_matrices_of_videos(tmp_path: pathlib.Path, number: int, suffix: str) -> None:
    plain = write_video(tmp_path / "plain.mp4", [quadrants(32, 48)] * 3)
    a, b, c, d = MATRICES[number]
    path = tmp_path / f"a.{suffix}"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_matrix([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    media = open_media(path)
    wanted = shown(read_clip(plain, 24)[1], a, b, c, d)
    assert (media.height, media.width) == wanted.shape[:2]
    np.testing.assert_array_equal(read_clip(path, 24)[1], wanted)
    assert media.notes == ((describe(number),) if number > 1 else ())


def test_mirrored_oblong_pixels(tmp_path: pathlib.Path) -> None:
    """Pixels are twice as wide as high before the picture is turned."""
    path = write_video(tmp_path / "a.mp4", [quadrants(48, 64)] * 3, aspect=Fraction(2), rotation=90)
    media = open_media(path)
    assert (media.height, media.width) == (64, 24)
    assert media.notes == ("pixels of aspect 2 made square", "turned by 270 degrees")


def corners(picture_YXC: np.ndarray) -> str:
    """Colours of the quarters, from the top left clockwise: red, green, blue, yellow."""
    height, width = picture_YXC.shape[:2]
    points = [(height // 4, width // 4), (height // 4, -width // 4), (-height // 4, -width // 4)]
    points.append((-height // 4, width // 4))
    names = {(1, 0, 0): "r", (0, 1, 0): "g", (0, 0, 1): "b", (1, 1, 0): "y"}
    return "".join(names[tuple(int(value > 128) for value in picture_YXC[point])] for point in points)


@pytest.mark.parametrize(
    ("name", "order"), [("hflip.mp4", "gryb"), ("vflip.mp4", "ybgr"), ("rot90.mp4", "yrgb"), ("exif6.jpg", "yrgb")]
)
def test_cases(name: str, order: str) -> None:
    """The same upright picture as a clip, as an image, and scaled."""
    media = open_media(CASES / name)
    (frame, *_) = media.frames()
    assert corners(frame.rgb(media.height, media.width)) == order
    assert corners(frame.rgb(16, 16)) == order
    assert corners(read_image(CASES / name)) == corners(read_clip(CASES / name, 24)[-1]) == order
    assert (media.height > media.width) == (order == "yrgb")
