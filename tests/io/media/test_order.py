"""Frames come in the order of showing, whatever time stamps say, each as a plain decode gives it."""

import pathlib
from itertools import islice

import av
import numpy as np
import pytest
from make_files import write_video

from vdit.io.media.media import Frame, Media, Unreadable
from vdit.io.media.opening import open_media
from vdit.io.media.timing import distinct_times, evened, numbered, plan_timing
from vdit.io.media.videos import Scaler

CASES = pathlib.Path(__file__).parent / "cases"


def moving(count: int = 30) -> list[np.ndarray]:
    """Noise that slides under a bar that falls: encoders use B-frames, and every frame is unlike all others."""
    noise = (
        np.random.default_rng(0)
        .integers(0, 200, (48, 128, 1), np.uint8)
        .repeat(3, 2)
        .repeat(2, 0)
        .repeat(2, 1)[:64, :160]
    )
    pictures = []
    for i in range(count):
        picture = np.roll(noise, 2 * i, axis=1)[:, :96].copy()
        picture[2 * i % 60 : 2 * i % 60 + 4] = 255
        pictures.append(picture)
    return pictures


def plainly(path: pathlib.Path) -> list[np.ndarray]:
    """All frames as the decoder gives them, without a look at their times."""
    with av.open(str(path)) as container:
        return [Scaler()(frame, frame.height, frame.width) for frame in container.decode(video=0)]


def same_frames(path: pathlib.Path, rate: float) -> None:
    """Whether the reader gives every frame that a plain decode gives, in its order, evenly, without a problem."""
    wanted = plainly(path)
    media = open_media(path)
    timing = plan_timing(media, 0)
    assert timing.even and timing.fps == pytest.approx(rate) and timing.notes == ()
    found = [(place, number, frame) for place, number, frame in evened(media, timing)]
    assert [place for place, _, _ in found] == [number for _, number, _ in found] == list(range(len(wanted)))
    assert not any(frame.problem for _, _, frame in found)
    assert np.all(np.diff([frame.time for _, _, frame in found]) > 0)
    assert len({picture.tobytes() for picture in wanted}) == len(wanted)
    for (_, _, frame), picture in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(frame.rgb(media.height, media.width), picture)


@pytest.mark.parametrize("name", ["x264_bf2.avi", "x264_remux.mp4"])
def test_cases(name: str) -> None:
    same_frames(CASES / name, 25)


@pytest.mark.parametrize(
    ("codec", "name", "options", "context"),
    [
        ("libx264", "a.avi", {"bf": "3", "preset": "veryfast"}, {}),
        ("libx264", "b.avi", {"bf": "2", "b-pyramid": "none", "preset": "veryfast"}, {}),
        ("mpeg4", "a.avi", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("mpeg2video", "a.avi", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("mpeg2video", "a.mpg", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("mpeg2video", "a.m2v", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("libx264", "a.mts", {"bf": "3", "preset": "veryfast"}, {}),
        ("libx264", "a.flv", {"bf": "3", "preset": "veryfast"}, {}),
        ("mpeg1video", "a.m1v", {}, {"bit_rate": 2_000_000}),
        ("libx264", "a.h264", {"bf": "3", "preset": "veryfast"}, {}),
        ("libx265", "a.hevc", {"x265-params": "log-level=none:bframes=3", "preset": "ultrafast"}, {}),
        ("mpeg2video", "a.mxf", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("wmv2", "a.wmv", {}, {"bit_rate": 2_000_000}),
        ("libx264", "a.3gp", {"bf": "3", "preset": "veryfast"}, {}),
        ("libx265", "a.mkv", {"x265-params": "log-level=none:bframes=3", "preset": "ultrafast"}, {}),
        (
            "libvpx-vp9",
            "a.webm",
            {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
            {"bit_rate": 2_000_000},
        ),
    ],
)
def test_encoders_and_containers(tmp_path: pathlib.Path, codec: str, name: str, options, context) -> None:
    path = write_video(tmp_path / name, moving(), 25, codec, "yuv420p", options=options, **context)
    same_frames(path, 25)


def without_offsets(path: pathlib.Path, remuxed: pathlib.Path, rate: int) -> pathlib.Path:
    """The same packets, with the times of their order in the file."""
    with av.open(str(path)) as source, av.open(str(remuxed), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        ticks = 1 / rate / source.streams.video[0].time_base
        for i, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            packet.pts = packet.dts = round(i * ticks)
            packet.stream = stream
            target.mux(packet)
    return remuxed


@pytest.mark.parametrize(
    ("codec", "suffix", "options", "context"),
    [
        ("libx264", "mp4", {"bf": "3", "preset": "veryfast"}, {}),
        ("libx264", "mkv", {"bf": "3", "preset": "veryfast"}, {}),
        ("mpeg4", "mp4", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("mpeg2video", "mp4", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("libx265", "mp4", {"x265-params": "log-level=none:bframes=3", "preset": "ultrafast"}, {}),
    ],
)
def test_remuxed_without_offsets(tmp_path: pathlib.Path, codec: str, suffix: str, options, context) -> None:
    """Packets get the times of their order in the file, as tools do that ignore the offsets of MP4."""
    path = write_video(tmp_path / f"a.{suffix}", moving(), 25, codec, "yuv420p", options=options, **context)
    same_frames(without_offsets(path, tmp_path / f"b.{suffix}", 25), 25)


def joined(target: pathlib.Path, parts: list[tuple[pathlib.Path, bool]], rate: int) -> pathlib.Path:
    """The packets of several files one after another; of those marked so, with the times of their order in the file."""
    with av.open(str(target), "w") as out:
        done, stream = 0, None
        for path, plain in parts:
            with av.open(str(path)) as source:
                stream = stream or out.add_stream_from_template(source.streams.video[0])
                ticks = 1 / rate / source.streams.video[0].time_base
                packets = [packet for packet in source.demux(video=0) if packet.size]
                first = min(packet.pts for packet in packets)
                for i, packet in enumerate(packets):
                    dts = round((done + i) * ticks)
                    packet.pts = dts if plain else round(done * ticks) + packet.pts - first + round(3 * ticks)
                    packet.dts, packet.stream = dts, stream
                    out.mux(packet)
                done += len(packets) + 3 * (not plain)
    return target


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("order", ["plain first", "plain last", "plain between"])
def test_parts_with_and_without_offsets(tmp_path: pathlib.Path, suffix: str, order: str) -> None:
    """As when a file that lost its offsets is joined to one that has them."""
    options = {"bf": "3", "preset": "veryfast", "x264-params": "scenecut=0"}
    path = write_video(tmp_path / f"a.{suffix}", moving(), 25, "libx264", "yuv420p", options=options)
    plain = {"plain first": [1, 0], "plain last": [0, 1], "plain between": [0, 1, 0]}[order]
    mixed = joined(tmp_path / f"b.{suffix}", [(path, bool(each)) for each in plain], 25)
    wanted, media = plainly(mixed), open_media(mixed)
    assert len(wanted) == len(media.times) == 30 * len(plain)
    found = list(numbered(media, distinct_times(media)))
    assert [(number, frame.problem) for number, frame in found] == [(i, "") for i in range(len(wanted))]
    assert np.all(np.diff([frame.time for _, frame in found]) > 0)
    for (_, frame), picture in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(frame.rgb(media.height, media.width), picture)


def media_of(times: list[float], stamps: list[float], unordered: bool = True) -> Media:
    """Media whose packets have `times`, and whose decoder gives frames with `stamps`."""
    frames = [Frame(stamp, lambda y, x, i=i: np.full((y, x, 3), i, np.uint8)) for i, stamp in enumerate(stamps)]
    doubted = np.full(len(times), unordered)
    return Media(8, 8, np.array(times), 1.0, 1.0, True, doubted, (), lambda: iter(frames))


def read(media: Media) -> list[tuple[int, int, str]]:
    """(number, which frame of the decoder it is, problem)."""
    found = numbered(media, distinct_times(media))
    return [(number, int(frame.rgb(1, 1)[0, 0, 0]), frame.problem) for number, frame in found]


def test_a_gap_is_no_reordering() -> None:
    found = read(media_of([0, 1, 2, 3, 4, 5], [0, 1, 3, 4, 5]))
    assert found == [(0, 0, ""), (1, 1, ""), (3, 2, "follows 1 missing frames"), (4, 3, ""), (5, 4, "")]


def test_reordering_that_begins_late_and_reaches_far() -> None:
    """As of a pyramid of 16 frames after a still beginning."""
    stamps = [*range(40), 56, *range(40, 56), *range(57, 80)]
    assert read(media_of(list(range(80)), stamps)) == [(i, i, "") for i in range(80)]


def test_stamps_that_order_packets_are_believed() -> None:
    """A damaged file may give a frame too late; the gap that it leaves is one."""
    found = read(media_of([0, 1, 2, 3, 4], [0, 2, 1, 3, 4], unordered=False))
    assert found[1] == (2, 1, "follows 1 missing frames")


def test_frames_missing_at_the_end() -> None:
    for stamps in ([0, 1, 2], [0, 2, 1]):
        with pytest.raises(Unreadable, match="the last 2 of 5 frames are missing"):
            read(media_of([0, 1, 2, 3, 4], stamps))


def test_more_frames_than_packets_pass_no_end() -> None:
    assert read(media_of([0, 1, 2], [0, 1, 2, 3, 4])) == [(0, 0, ""), (1, 1, ""), (2, 2, "")]


def test_two_frames_of_one_time_are_one() -> None:
    """As of 457 frames at 455 times."""
    times = [0, 1, 1.1, 2, 3, 3.01, 4]
    assert read(media_of(times, times)) == [(0, 0, ""), (1, 1, ""), (2, 3, ""), (3, 4, ""), (4, 6, "")]


def test_an_error_comes_after_the_frames_before_it() -> None:
    """Also if it is met while looking ahead."""

    def frames():
        for stamp in (0, 1, 3, 4):
            yield Frame(stamp, lambda y, x: np.zeros((y, x, 3), np.uint8))
        raise Unreadable("torn")

    media, seen = Media(8, 8, np.arange(9.0), 1.0, 1.0, True, np.ones(9, bool), (), frames), []
    with pytest.raises(Unreadable, match="torn"):
        for number, _ in numbered(media, media.times):
            seen.append(number)
    assert seen == [0, 1, 3, 4]


def test_a_frame_that_an_avi_dropped_is_no_gap(tmp_path: pathlib.Path) -> None:
    """AVI says with an empty packet that the picture stays: the one before is shown longer."""
    path = write_video(tmp_path / "a.avi", moving(), 25, "mpeg4", "yuv420p", bit_rate=2_000_000)
    dropped = tmp_path / "b.avi"
    with av.open(str(path)) as source, av.open(str(dropped), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        shift = 0
        for i, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            shift += i == 10
            packet.pts = packet.dts = i + shift
            packet.stream = stream
            target.mux(packet)
    media = open_media(dropped)
    timing = plan_timing(media, 0)
    found = [number for _, number, frame in evened(media, timing) if not frame.problem]
    assert timing.fps == pytest.approx(25) and found == [*range(10), 9, *range(10, 30)]


@pytest.fixture(scope="module")
def film() -> list[np.ndarray]:
    """Two seconds of the film around a cut."""
    from data_pipelines.sources.film import film_path

    with av.open(str(film_path(""))) as container:
        frames = islice(container.decode(video=0), 240, 300)
        return [frame.reformat(320, 180, "rgb24").to_ndarray() for frame in frames]


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("codec", "name", "options", "context"),
    [
        ("libx264", "a.avi", {"bf": "3", "crf": "20", "preset": "medium"}, {}),
        ("mpeg4", "a.avi", {}, {"max_b_frames": 2, "bit_rate": 2_000_000}),
        ("mpeg2video", "a.avi", {}, {"max_b_frames": 2, "bit_rate": 4_000_000}),
        ("libx265", "a.mp4", {"x265-params": "log-level=none:bframes=4", "preset": "medium"}, {}),
    ],
)
def test_real_film(tmp_path: pathlib.Path, film: list[np.ndarray], codec: str, name: str, options, context) -> None:
    """Encoded as a user would, and remuxed without the offsets."""
    path = write_video(tmp_path / name, film, 24, codec, "yuv420p", options=options, **context)
    same_frames(path, 24)
    same_frames(without_offsets(path, tmp_path / "b.mkv", 24), 24)
