"""Pictures and clips as the sampler reads them: by time, scaled while they are decoded, from files alone."""

import pathlib
import tracemalloc
import weakref

import av
import numpy as np
import pytest
from make_files import grey, quadrants, write_video

from vdit.errors import UserError
from vdit.io.media.clips import GivenClip, open_clip, open_image, read_clip, read_image
from vdit.io.media.media import Frame, Media
from vdit.io.video import write_npz

CASES = pathlib.Path(__file__).parent / "cases"


def levels(video_TYXC: np.ndarray) -> list[int]:
    """Numbers of frames made by `grey(10 + 4 * number)`."""
    return ((video_TYXC.mean(axis=(1, 2, 3)) - 10) / 4).round().astype(int).tolist()


def test_the_frame_that_is_shown_at_each_time(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(10 + 4 * i) for i in range(24)], 24, options={"bf": "2"})
    assert levels(read_clip(path, 24)) == list(range(24))
    assert levels(read_clip(path, 12)) == list(range(0, 24, 2))
    assert levels(read_clip(path, 48)) == [i // 2 for i in range(48)]
    assert open_clip(path, 12).frames == 12  # known before anything is decoded


@pytest.mark.parametrize("fps", [30.0, 30.0557, 29.97])
def test_a_rate_that_is_nearly_right_gives_every_frame(fps: float) -> None:
    """Of a phone: 30.06 frames/s, with stamps that jitter."""
    np.testing.assert_array_equal(open_clip(CASES / "phone3005.mp4", fps).numbers_T, np.arange(90))


@pytest.mark.parametrize("name", ["x264_bf2.avi", "x264_remux.mp4"])
def test_frames_are_in_order(name: str) -> None:
    """A bar that moves to the right, frame by frame: each frame is nearest to its neighbours."""
    video = read_clip(CASES / name, 25).astype(int)
    assert len(video) == 50
    steps = np.abs(np.diff(video, axis=0)).mean(axis=(1, 2, 3))
    skips = np.abs(video[2:] - video[:-2]).mean(axis=(1, 2, 3))
    assert (steps[:-1] <= skips).all() and (steps > 0).all()


def test_scaled_while_read(tmp_path: pathlib.Path) -> None:
    """Pixels of 70 MB at full size; in memory are those that are asked for, and a frame."""
    path = write_video(tmp_path / "a.mp4", [quadrants(480, 640, 8 * i) for i in range(8)] * 10, 24, pix_fmt="yuv420p")
    clip = open_clip(path, 24)
    clip.read(8, 8)
    tracemalloc.start()
    video = clip.read(48, 64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert video.shape == (80, 48, 64, 3) and peak < video.nbytes + 2 * 480 * 640 * 3


def test_one_frame_at_a_time_is_held() -> None:
    """Whatever the length: frames of the decoder are let go as soon as they are scaled."""
    alive: list[weakref.ref] = []
    most = 0

    class Picture:
        def scaled(self, height: int, width: int) -> np.ndarray:
            return np.zeros((height, width, 3), np.uint8)

    def frames():
        nonlocal most
        for number in range(500):
            picture = Picture()
            alive.append(weakref.ref(picture))
            most = max(most, sum(each() is not None for each in alive[-40:]))
            yield Frame(float(number), picture.scaled)

    media = Media(1080, 1920, np.arange(500.0), 1.0, 1.0, True, np.zeros(500, bool), (), frames)
    assert GivenClip("", media, np.arange(500)).read(8, 8).shape == (500, 8, 8, 3)
    assert len(alive) == 500 and most <= 3


def test_reading_stops_where_the_clip_does() -> None:
    given = []

    def frames():
        for number in range(500):
            given.append(number)
            yield Frame(float(number), lambda y, x: np.zeros((y, x, 3), np.uint8))

    media = Media(8, 8, np.arange(500.0), 1.0, 1.0, True, np.zeros(500, bool), (), frames)
    GivenClip("", media, np.arange(500)).first(5).read(8, 8)
    assert len(given) <= 6


def test_npz_comes_back_exactly(tmp_path: pathlib.Path) -> None:
    video = np.random.default_rng(0).integers(0, 256, (9, 16, 24, 3), np.uint8)
    write_npz(tmp_path / "a.npz", video, 12.0, {})
    np.testing.assert_array_equal(read_clip(tmp_path / "a.npz", 12.0), video)
    np.testing.assert_array_equal(read_clip(tmp_path / "a.npz", 6.0), video[:8:2])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"video": np.zeros((2, 4, 4), np.uint8), "fps": 3.0}, "not uint8 frames of RGB"),
        ({"video": np.zeros((0, 4, 4, 3), np.uint8), "fps": 3.0}, "not uint8 frames of RGB"),
        ({"video": np.zeros((2, 4, 4, 3), np.uint8), "fps": 0.0}, "its rate is 0"),
        ({"video": np.zeros((2, 4, 4, 3), np.uint8), "fps": np.nan}, "its rate is nan"),
        ({"video": np.zeros((2, 4, 4, 3), np.uint8)}, "fps"),
    ],
)
def test_arrays_that_are_no_clip(tmp_path: pathlib.Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(UserError, match=rf"--head=.*a.npz cannot be read as a clip: .*{message}"):
        read_clip(tmp_path / "a.npz", 12.0)


def test_urls_are_not_opened() -> None:
    for url in ("http://127.0.0.1:9/a.png", "tcp://127.0.0.1:9", "file:///etc/passwd", "concat://a"):
        for read in (lambda path: read_clip(path, 12.0), read_image):
            with pytest.raises(UserError, match="is a URL; copy the file"):
                read(url)


def test_playlists_are_not_followed(tmp_path: pathlib.Path) -> None:
    secret = write_video(tmp_path / "secret.mp4", [quadrants(48, 64)] * 5)
    for text in (f"ffconcat version 1.0\nfile '{secret}'\n", f"#EXTM3U\n#EXTINF:1,\n{secret}\n"):
        (tmp_path / "list.mp4").write_text(text)
        with pytest.raises(UserError, match="cannot be read as a clip: not a readable video"):
            read_clip(tmp_path / "list.mp4", 12.0)


def test_the_first_frame_of_an_animation_or_video_is_an_image(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(10 + 4 * i) for i in range(24)], 24, options={"bf": "2"})
    assert levels(read_image(path)[None]) == [0]
    assert open_image(CASES / "pause.gif").read(64, 64).shape == (1, 64, 64, 3)


def test_a_clip_that_was_cut_without_being_encoded_anew(tmp_path: pathlib.Path) -> None:
    """Its first frames want others that are gone."""
    path = write_video(tmp_path / "a.mkv", [grey(10 + 4 * i) for i in range(40)], 24, options={"g": "10", "bf": "0"})
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[4:-1]:
            packet.stream = stream
            target.mux(packet)
    assert levels(read_clip(tmp_path / "b.mkv", 24)) == [*[10] * 6, *range(10, 40)]


def test_damage_in_the_middle_is_named(tmp_path: pathlib.Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (30, 48, 64, 3), np.uint8)
    data = bytearray(write_video(tmp_path / "a.mkv", list(noise), 24, options={"g": "5", "bf": "0"}).read_bytes())
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    (tmp_path / "a.mkv").write_bytes(data)
    with pytest.raises(UserError, match=r"--head=.*a.mkv cannot be read as a clip: frame 1\d (is damaged|follows)"):
        read_clip(tmp_path / "a.mkv", 24)
    assert len(open_clip(tmp_path / "a.mkv", 24).first(5).read(8, 8)) == 5
