"""Which of several streams is the video, and alpha that lies in a side stream."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest
from make_files import grey, write_sound, write_video
from PIL import Image

from vdit.io.media.clips import read_clip
from vdit.io.media.media import Unreadable
from vdit.io.media.opening import open_media

CASES = pathlib.Path(__file__).parent / "cases"
DEFAULT, COVER = av.stream.Disposition.default, av.stream.Disposition.attached_pic


def join(path: pathlib.Path, *parts: tuple[pathlib.Path, int]) -> pathlib.Path:
    """A file of the first streams of others, each with a disposition."""
    with av.open(str(path), "w") as target:
        packets = []
        for part, disposition in parts:
            with av.open(str(part)) as source:
                stream = target.add_stream_from_template(source.streams[0])
                stream.disposition = disposition
                for packet in list(source.demux(source.streams[0])):
                    if packet.size:
                        packet.stream = stream
                        packets.append(packet)
        for packet in packets:
            target.mux(packet)
    return path


def level(path: pathlib.Path) -> int:
    return int(read_clip(path, 24).mean().round(-1))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, pathlib.Path]:
    """Videos of one level each, and a picture."""
    folder = tmp_path_factory.mktemp("parts")
    found = {name: write_video(folder / f"{name}.mp4", [grey(value)] * count) for name, value, count in VIDEOS}
    found["picture"] = write_video(folder / "picture.mkv", [grey(20)], codec="mjpeg", pix_fmt="yuvj420p")
    found["sound"] = write_sound(folder / "sound.mp4")
    return found


VIDEOS = (("short", 100, 5), ("long", 180, 12))


@pytest.mark.parametrize(
    ("streams", "wanted", "note"),
    [
        ((("short", 0), ("long", DEFAULT)), 180, "the default of 2 video streams, number 2"),
        ((("long", 0), ("short", DEFAULT)), 100, "the default of 2 video streams, number 2"),
        ((("short", 0), ("long", 0)), 180, "the longest of 2 video streams, number 2"),
        ((("long", 0), ("short", 0)), 180, "the longest of 2 video streams, number 1"),
        ((("short", DEFAULT), ("long", DEFAULT)), 180, "the longest of 2 video streams, number 2"),
        ((("picture", DEFAULT), ("short", 0)), 100, "the longest of 2 video streams, number 2"),
        ((("sound", DEFAULT), ("short", DEFAULT)), 100, ""),
    ],
)
def test_the_default_or_the_longest_that_moves(tmp_path: pathlib.Path, parts, streams, wanted: int, note: str) -> None:
    path = join(tmp_path / "a.mkv", *((parts[name], disposition) for name, disposition in streams))
    assert level(path) == wanted
    assert open_media(path).notes == ((note,) if note else ())


def test_covers_are_no_video(tmp_path: pathlib.Path, parts) -> None:
    with av.open(str(parts["short"])) as source, av.open(str(tmp_path / "a.mp4"), "w") as target:
        cover = target.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt, cover.disposition = 64, 48, "yuvj420p", COVER
        stream = target.add_stream_from_template(source.streams.video[0])
        target.mux(cover.encode(av.VideoFrame.from_ndarray(grey(20), "rgb24")))
        target.mux(cover.encode())
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    media = open_media(tmp_path / "a.mp4")
    assert level(tmp_path / "a.mp4") == 100 and len(media.times) == 5 and media.notes == ()


def test_sound_alone(parts) -> None:
    with pytest.raises(Unreadable, match="the file has sound only"):
        open_media(parts["sound"])


def test_a_codec_that_nobody_knows(tmp_path: pathlib.Path) -> None:
    data = write_video(tmp_path / "a.mkv", [grey(50)] * 3).read_bytes()
    (tmp_path / "a.mkv").write_bytes(data.replace(b"V_MPEG4/ISO/AVC", b"V_NONE_/ISO/AVC"))
    with pytest.raises(Unreadable, match="no decoder knows the codec"):
        open_media(tmp_path / "a.mkv")


@pytest.mark.parametrize("name", ["two_videos.mp4", "plainjpeg_first.mkv"])
def test_cases(name: str) -> None:
    media = open_media(CASES / name)
    assert (media.height, media.width, len(media.times)) == (128, 192, 26)
    assert media.notes == ("the default of 2 video streams, number 2",)


def test_the_case_of_alpha() -> None:
    """A red disc without ground: its corner is white, as documented."""
    media = open_media(CASES / "alpha_vp9.webm")
    assert media.notes == ("alpha on white",)
    frames = [frame.rgb(96, 96) for frame in media.frames()]
    assert len(frames) == 9
    for frame in frames:
        np.testing.assert_array_equal(frame[2, 2], [255, 255, 255])
        np.testing.assert_allclose(frame[48, 48].astype(int), [220, 40, 40], atol=4)


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_alpha_in_a_side_stream(tmp_path: pathlib.Path, codec: str) -> None:
    """WebM has alpha as a second picture beside each: what FFmpeg's own decoders do not show."""
    rgba = np.full((48, 64, 4), (30, 30, 200, 255), np.uint8)
    rgba[:, :32, 3] = 0
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(24), options={"auto-alt-ref": "0", "crf": "4"})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 64, 48, "yuva420p", 2_000_000
        stream.metadata["alpha_mode"] = "1"
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(rgba, "rgba")
            container.mux(stream.encode(frame.reformat(format="yuva420p")))
        container.mux(stream.encode())
    video = read_clip(tmp_path / "a.webm", 24).astype(int)
    assert open_media(tmp_path / "a.webm").notes == ("alpha on white",)
    assert len(video) == 5
    np.testing.assert_allclose(video[:, 24, 8], np.full((5, 3), 255), atol=3)
    np.testing.assert_allclose(video[:, 24, 56], np.tile([30, 30, 200], (5, 1)), atol=9)


def test_alpha_of_animations(tmp_path: pathlib.Path) -> None:
    rgba = np.full((16, 16, 4), (200, 30, 30, 255), np.uint8)
    rgba[:8, :, 3] = 0
    frames = [Image.fromarray(np.roll(rgba, i, axis=0)) for i in range(3)]
    for suffix in ("webp", "png", "avif"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], duration=100, quality=100)
        video = read_clip(path, 10)
        assert len(video) == 3 and "alpha on white" in open_media(path).notes
        np.testing.assert_allclose(video[0, 2, 2].astype(int), [255] * 3, atol=4, err_msg=suffix)
