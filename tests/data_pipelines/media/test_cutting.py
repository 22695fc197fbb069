"""What files of every kind look like once they are read; all files are made here."""

import itertools
import pathlib
import re
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from make_files import grey, quadrants, write_sound, write_video
from PIL import Image

from data_pipelines.media.clip import Clip, Cut, Input, Options, Rejection
from data_pipelines.media.cutting import file_clips
from vdit.io.media.opening import open_media


def read(path: pathlib.Path, **options):
    """The one outcome of a file."""
    (outcome,) = read_all(path, **options)
    return outcome


def read_all(path: pathlib.Path, **options):
    source = Input(path.name, "train", str(path), captions={"caption": "a test"})
    return list(file_clips("test", source, Options(**options)))


def corners(picture_YXC: np.ndarray) -> list[list[int]]:
    """Mean colours of the quarters, from the top left clockwise."""
    y, x = picture_YXC.shape[0] // 2, picture_YXC.shape[1] // 2
    margin = np.s_[2:-2, 2:-2]
    quarters = picture_YXC[:y, :x], picture_YXC[:y, x:], picture_YXC[y:, x:], picture_YXC[y:, :x]
    return [quarter[margin].mean(axis=(0, 1)).round().astype(int).tolist() for quarter in quarters]


COLOURS = [[200, 30, 30], [30, 180, 30], [30, 30, 200], [220, 220, 220]]


def same_colours(picture_YXC: np.ndarray, order=(0, 1, 2, 3), tolerance: int = 8) -> None:
    np.testing.assert_allclose(corners(picture_YXC), [COLOURS[i] for i in order], atol=tolerance)


@pytest.mark.parametrize("size", [(48, 64), (50, 66), (34, 30)])
def test_odd_sizes_are_rounded_to_the_grid(tmp_path: pathlib.Path, size: tuple[int, int]) -> None:
    clip = read(write_video(tmp_path / "a.mp4", [quadrants(*size)] * 9))
    assert isinstance(clip, Clip)
    wanted = tuple(8 * round(side / 8) for side in size)
    assert clip.video_TYXC.shape == (9, *wanted, 3) and clip.shape_before == (9, *size)
    assert all(abs(a - b) <= 4 for a, b in zip(size, wanted, strict=True))
    same_colours(clip.video_TYXC[4])


def test_odd_sides_of_images(tmp_path: pathlib.Path) -> None:
    for suffix in ("png", "jpg", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(quadrants(37, 53)).save(path, quality=95)
        clip = read(path)
        assert clip.video_TYXC.shape == (1, 40, 56, 3) and clip.shape_before == (1, 37, 53)
        same_colours(clip.video_TYXC[0], tolerance=14)


def test_only_scaled_down_and_area_averaged(tmp_path: pathlib.Path) -> None:
    """Against exact block means."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (16, 24, 3), dtype=np.uint8)
    noise = rng.integers(-9, 10, (64, 96, 1))
    large = np.clip(small.repeat(4, 0).repeat(4, 1) + noise, 0, 255).astype(np.uint8)
    wanted = large.reshape(16, 4, 24, 4, 3).mean(axis=(1, 3))
    path = write_video(tmp_path / "a.mkv", [large], codec="ffv1", pix_fmt="yuv444p")
    clip = read(path, max_tokens=6)
    assert clip.video_TYXC.shape == (1, 16, 24, 3)
    assert np.abs(clip.video_TYXC[0] - wanted).mean() < 2
    Image.fromarray(large).save(tmp_path / "a.png")
    clip = read(tmp_path / "a.png", max_tokens=6)
    assert np.abs(clip.video_TYXC[0] - wanted).max() <= 1
    assert read(tmp_path / "a.png").video_TYXC.shape == (1, 64, 96, 3)


@pytest.mark.parametrize(("rotation", "order"), [(90, (1, 2, 3, 0)), (180, (2, 3, 0, 1)), (-90, (3, 0, 1, 2))])
def test_rotation_metadata(tmp_path: pathlib.Path, rotation: int, order: tuple[int, ...]) -> None:
    """A display matrix that turns by 90 degrees counter-clockwise brings the top right corner to the top left."""
    path = write_video(tmp_path / "a.mp4", [quadrants(48, 80)] * 5, rotation=rotation)
    clip = read(path)
    shape = (48, 80) if rotation == 180 else (80, 48)
    assert clip.video_TYXC.shape == (5, *shape, 3) and clip.shape_before == (5, *shape)
    same_colours(clip.video_TYXC[2], order)
    assert any("turned by" in note for note in clip.notes)


def test_exif_rotation(tmp_path: pathlib.Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the stored left is the top: turn 90 degrees clockwise
    Image.fromarray(quadrants(48, 80)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    clip = read(tmp_path / "a.jpg")
    assert clip.video_TYXC.shape == (1, 80, 48, 3) and "turned upright" in clip.notes
    same_colours(clip.video_TYXC[0], (3, 0, 1, 2), 14)


@pytest.mark.parametrize(("aspect", "shape"), [(Fraction(2), (24, 64)), (Fraction(1, 2), (48, 32))])
def test_oblong_pixels_are_made_square_by_shrinking(tmp_path: pathlib.Path, aspect, shape) -> None:
    path = write_video(tmp_path / "a.mp4", [quadrants(48, 64)] * 5, aspect=aspect)
    clip = read(path)
    assert clip.video_TYXC.shape == (5, *shape, 3)
    same_colours(clip.video_TYXC[0], tolerance=12)
    assert f"pixels of aspect {float(aspect):.4g} made square" in clip.notes


def test_rotated_oblong_pixels(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [quadrants(48, 64)] * 5, aspect=Fraction(2), rotation=90)
    clip = read(path)
    assert clip.video_TYXC.shape == (5, 64, 24, 3)
    same_colours(clip.video_TYXC[0], (1, 2, 3, 0), 12)


def test_alpha_is_laid_on_white(tmp_path: pathlib.Path) -> None:
    rgba = np.zeros((48, 64, 4), np.uint8)
    rgba[:24] = (255, 0, 0, 255)
    rgba[24:, :32] = (0, 0, 255, 127)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    write_video(tmp_path / "a.mov", [rgba] * 5, codec="qtrle", pix_fmt="argb", source_format="rgba")
    write_video(tmp_path / "b.mkv", [rgba] * 5, codec="ffv1", pix_fmt="yuva444p", source_format="rgba")
    for name in ("a.png", "a.mov", "b.mkv"):
        clip = read(tmp_path / name)
        video = clip.video_TYXC.astype(int)
        assert "alpha on white" in clip.notes, name
        for place, colour in (((5, 5), (255, 0, 0)), ((40, 5), (128, 128, 255)), ((40, 60), (255, 255, 255))):
            np.testing.assert_allclose(video[-1][place], colour, atol=3, err_msg=name)


def test_palette_with_a_transparent_colour(tmp_path: pathlib.Path) -> None:
    image = Image.fromarray(quadrants(48, 64)).quantize(8)
    image.info["transparency"] = image.getpixel((2, 2))
    image.save(tmp_path / "a.png", transparency=image.getpixel((2, 2)))
    clip = read(tmp_path / "a.png")
    np.testing.assert_array_equal(clip.video_TYXC[0, 2, 2], [255, 255, 255])
    np.testing.assert_allclose(clip.video_TYXC[0, 2, 60], COLOURS[1], atol=4)


def test_grey(tmp_path: pathlib.Path) -> None:
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
    write_video(tmp_path / "a.mkv", [ramp] * 5, codec="ffv1", pix_fmt="gray", source_format="gray")
    Image.fromarray(ramp).save(tmp_path / "a.png")
    Image.fromarray(ramp.astype(np.uint16) * 257).save(tmp_path / "b.png")
    for name in ("a.mkv", "a.png", "b.png"):
        video = read(tmp_path / name).video_TYXC
        assert video.shape[1:] == (48, 64, 3)
        np.testing.assert_allclose(video[0].astype(int), np.repeat(ramp[..., None], 3, -1), atol=2, err_msg=name)


def test_ten_bits(tmp_path: pathlib.Path) -> None:
    for codec, pix_fmt in (("ffv1", "yuv444p10le"), ("libx264", "yuv420p10le")):
        path = write_video(tmp_path / f"{codec}.mkv", [quadrants(48, 64)] * 5, codec=codec, pix_fmt=pix_fmt)
        clip = read(path)
        assert clip.video_TYXC.shape == (5, 48, 64, 3)
        same_colours(clip.video_TYXC[4], tolerance=10)


@pytest.mark.parametrize(("matrix", "tag"), [("ITU601", 6), ("ITU709", 1)])
@pytest.mark.parametrize("colour_range", [1, 2])  # limited, full
def test_colour_matrices_and_ranges(tmp_path: pathlib.Path, matrix: str, tag: int, colour_range: int) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "2", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tag, colour_range
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(quadrants(48, 64), "rgb24")
            frame = frame.reformat(format="yuv444p", dst_colorspace=matrix, dst_color_range=colour_range)
            frame.colorspace, frame.color_range = tag, colour_range
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    same_colours(read(tmp_path / "a.mp4").video_TYXC[2], tolerance=3)


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "suffix"),
    [
        ("libx264", "yuv420p", "mp4"),
        ("libvpx", "yuv420p", "webm"),
        ("libvpx-vp9", "yuv420p", "webm"),
        ("mpeg4", "yuv420p", "avi"),
        ("mjpeg", "yuvj420p", "mov"),
        ("ffv1", "bgr0", "mkv"),
    ],
)
def test_codecs_and_containers(tmp_path: pathlib.Path, codec: str, pix_fmt: str, suffix: str) -> None:
    pictures = [quadrants(48, 64, 2 * i) for i in range(30)]
    path = write_video(
        tmp_path / f"a.{suffix}", pictures, 25, codec, pix_fmt, bit_rate=4_000_000, sound=suffix == "mp4"
    )
    clip = read(path)
    assert clip.video_TYXC.shape == (29, 48, 64, 3) and clip.shape_before == (30, 48, 64)
    assert clip.fps == pytest.approx(25) and "last 1 kept frames trimmed" in clip.notes
    same_colours(clip.video_TYXC[0], tolerance=16)
    for i in (7, 28):
        assert np.abs(clip.video_TYXC[i].astype(int) - pictures[i]).mean() < 14


def test_animated_images(tmp_path: pathlib.Path) -> None:
    pictures = [Image.fromarray(grey(20 + 20 * i)) for i in range(9)]
    for suffix in ("gif", "webp"):
        path = tmp_path / f"a.{suffix}"
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=80, loop=0, lossless=True)
        clip = read(path)
        assert clip.video_TYXC.shape == (9, 48, 64, 3) and clip.fps == pytest.approx(12.5)
        np.testing.assert_allclose(clip.video_TYXC.mean(axis=(1, 2, 3)), 20 + 20 * np.arange(9), atol=2)


def levels(clip: Clip) -> list[int]:
    """Numbers of frames made by `grey(10 + 4 * number)`."""
    return ((clip.video_TYXC.mean(axis=(1, 2, 3)) - 10) / 4).round().astype(int).tolist()


def test_fewer_frames_per_second(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(10 + 4 * i) for i in range(50)], 24)
    for fps, step in ((24, 1), (12, 2), (30, 1), (10, 3)):
        clip = read(path, fps=fps)
        assert clip.fps == pytest.approx(24 / step) and clip.fps_before == pytest.approx(24)
        kept = list(range(0, 50, step))
        assert levels(clip) == kept[: 1 + 4 * ((len(kept) - 1) // 4)]
    assert "kept 1 of 3 frames" in clip.notes


def test_a_long_hold_is_split_into_distinct_pieces(tmp_path: pathlib.Path) -> None:
    """One frame that is shown for many points of the grid, over several pieces."""
    times = [0, 0.1, 0.2, 0.3, 4.0, 4.1, 4.2, 4.3, 4.4, 4.5]
    path = write_video(tmp_path / "a.mkv", [grey(10 + 4 * i) for i in range(10)], 10, times=times)
    *pieces, cut = read_all(path, max_frames=1)
    assert isinstance(cut, Cut) and len(pieces) == 10
    assert len({piece.id for piece in pieces}) == len({piece.item for piece in pieces}) == 10
    assert [levels(piece)[0] for piece in pieces] == [0, 3, 3, 3, 3, 3, 3, 3, 4, 9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_uneven_frame_times_keep_the_time(tmp_path: pathlib.Path, suffix: str) -> None:
    """Frame i is shown from times[i] on: at every point of the new grid the frame seen then."""
    times = [0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0, 1.6, 2.0]
    path = write_video(tmp_path / f"a.{suffix}", [grey(10 + 4 * i) for i in range(9)], 10, times=times)
    clip = read(path)
    rate = (len(times) - 1) / times[-1]
    assert clip.fps == pytest.approx(rate) and clip.fps_before == pytest.approx(rate)
    wanted = [max(i for i, t in enumerate(times) if t <= k / rate + 1e-6) for k in range(9)]
    assert levels(clip) == wanted and wanted != list(range(9))
    assert "uneven frame times put on 4 frames/s" in clip.notes


def test_jittered_stamps_are_even(tmp_path: pathlib.Path) -> None:
    """Stamps rounded to milliseconds, as in mkv, change nothing; nor does a late start."""
    times = [5 + round(i / 29.97, 3) for i in range(33)]
    path = write_video(tmp_path / "a.mkv", [grey(10 + 4 * i) for i in range(33)], 30000 / 1001, times=times)
    clip = read(path)
    assert levels(clip) == list(range(33)) and clip.fps == pytest.approx(29.97, rel=1e-3) and clip.notes == ()


def test_hidden_frames_are_no_frames(tmp_path: pathlib.Path) -> None:
    """VP8's alternate reference frames are packets of their own."""
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "arnr-maxframes": "7"}
    rng = np.random.default_rng(0)
    pictures = [quadrants(48, 64, 3 * i) // 2 + rng.integers(0, 60, (48, 64, 3), np.uint8) for i in range(41)]
    path = write_video(tmp_path / "a.webm", pictures, 25, "libvpx", "yuv420p", options=options, bit_rate=200_000)
    clip = read(path)
    assert clip.video_TYXC.shape[0] == 41 and clip.fps == pytest.approx(25)


def test_long_clips_are_split(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(10 + 4 * i) for i in range(30)])
    *pieces, last, cut = read_all(path, max_frames=12, min_frames=5)
    assert [levels(piece) for piece in pieces] == [list(range(9)), list(range(9, 18)), list(range(18, 27))]
    assert isinstance(last, Rejection) and last.item == "a.mp4 [27, 30)" and "3 frames are fewer" in last.reason
    assert isinstance(cut, Cut) and cut.reason == "cut into 4 pieces, 3 of them stored"
    assert len({piece.id for piece in pieces}) == 3
    assert [piece.item for piece in pieces] == ["a.mp4 [0, 9)", "a.mp4 [9, 18)", "a.mp4 [18, 27)"]


def test_shots_are_found(tmp_path: pathlib.Path) -> None:
    slope = np.linspace(0, 40, 64)[None, :, None] + np.zeros((48, 64, 1))
    scenes = [slope + colour for colour in ((200, 20, 20), (20, 20, 200), (200, 20, 20))]
    pictures = [np.uint8(scene + i) for scene in scenes for i in range(13)]
    path = write_video(tmp_path / "a.mp4", pictures)
    *clips, cut = read_all(path, shots=True)
    assert [clip.item for clip in clips] == ["a.mp4 [0, 13)", "a.mp4 [13, 26)", "a.mp4 [26, 39)"]
    assert all(clip.video_TYXC.shape == (13, 48, 64, 3) for clip in clips) and isinstance(cut, Cut)
    thinned = read_all(path, shots=True, fps=12)[:-1]
    assert [clip.item for clip in thinned] == [clip.item for clip in clips]
    for clip, full in zip(thinned, clips, strict=True):
        np.testing.assert_array_equal(clip.video_TYXC, full.video_TYXC[:10:2])


def test_black_and_frozen_clips_can_be_left_out(tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(2)
    moving = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(5)]
    write_video(tmp_path / "moving.mp4", moving)
    write_video(tmp_path / "frozen.mp4", [quadrants(48, 64)] * 5)
    write_video(tmp_path / "black.mp4", [grey(3)] * 5)
    Image.fromarray(quadrants(48, 64)).save(tmp_path / "still.png")
    reasons = {}
    for path in sorted(tmp_path.iterdir()):
        assert isinstance(read(path), Clip)
        outcome = read(path, reject=("black", "frozen"))
        reasons[path.name] = outcome.reason if isinstance(outcome, Rejection) else ""
    assert reasons == {"black.mp4": "black", "frozen.mp4": "frozen: nothing moves", "moving.mp4": "", "still.png": ""}


def rejected(path: pathlib.Path, **options) -> str:
    outcome = read(path, **options)
    assert isinstance(outcome, Rejection), outcome
    return outcome.reason


def test_files_that_give_no_clip_say_why(tmp_path: pathlib.Path) -> None:
    whole = write_video(tmp_path / "whole.mkv", [quadrants(48, 64, i) for i in range(72)], sound=True).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert "the file ends at" in rejected(tmp_path / "cut.mkv")
    moving = write_video(tmp_path / "whole.mp4", [quadrants(48, 64, i) for i in range(72)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(moving[: len(moving) // 2])
    assert "not a readable video" in rejected(tmp_path / "cut.mp4")
    (tmp_path / "empty.mp4").touch()
    assert rejected(tmp_path / "empty.mp4") == "the file is empty"
    (tmp_path / "text.mp4").write_text("#EXTM3U\nhttp://example.org/a.mp4\n")
    assert "Invalid data" in rejected(tmp_path / "text.mp4")
    assert rejected(write_sound(tmp_path / "sound.mp4")) == "the file has sound only"
    Image.fromarray(grey(9, 1, 1)).save(tmp_path / "dot.png")
    assert "1x1 is smaller than half a patch" in rejected(tmp_path / "dot.png")
    Image.fromarray(grey(9, 16, 20000)).save(tmp_path / "thin.png")
    assert "20000x16 is too long and thin" in rejected(tmp_path / "thin.png", max_tokens=500)
    assert read(tmp_path / "thin.png").video_TYXC.shape == (1, 16, 20000, 3)
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:5000])
    assert "not a readable image" in rejected(tmp_path / "cut.png") or "cannot be decoded" in rejected(
        tmp_path / "cut.png"
    )
    assert "smaller than --min_side=49" in rejected(tmp_path / "whole.png", min_side=49)
    assert "1 frames are fewer than --min_frames=2" in rejected(tmp_path / "whole.png", min_frames=2)


def test_what_is_in_a_file_counts_not_its_name(tmp_path: pathlib.Path) -> None:
    Image.fromarray(quadrants(48, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / "picture.mp4")
    same_colours(read(tmp_path / "picture.mp4").video_TYXC[0])
    write_video(tmp_path / "a.mp4", [quadrants(48, 64)] * 5).rename(tmp_path / "video.jpg")
    assert read(tmp_path / "video.jpg").video_TYXC.shape == (5, 48, 64, 3)


def test_a_playlist_does_not_open_other_files(tmp_path: pathlib.Path) -> None:
    write_video(tmp_path / "secret.mp4", [quadrants(48, 64)] * 5)
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile '{tmp_path}/secret.mp4'\n")
    assert "not a readable video" in rejected(tmp_path / "list.mp4")


def test_damage_costs_the_clip_it_is_in(tmp_path: pathlib.Path) -> None:
    """Bytes overwritten in the middle: pieces before stay, damaged ones are rejected, no other picture gets through."""
    rng = np.random.default_rng(3)
    pictures = [rng.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(60)]
    path = write_video(tmp_path / "a.mkv", pictures, options={"g": "10", "bf": "0"}, pix_fmt="yuv420p")
    data = bytearray(path.read_bytes())
    place = len(data) * 6 // 10
    data[place : place + 3000] = bytes(3000)
    path.write_bytes(bytes(data))
    outcomes = read_all(path, max_frames=5)
    clips = [outcome for outcome in outcomes if isinstance(outcome, Clip)]
    kinds = [type(outcome).__name__ for outcome in outcomes]
    assert kinds[:5] == ["Clip"] * 5 and "Rejection" in kinds and kinds[-1] == "Cut"
    stored = np.concatenate([clip.video_TYXC for clip in clips]).astype(np.float32)
    nearest = [int(np.abs(frame - np.array(pictures, np.float32)).mean(axis=(1, 2, 3)).argmin()) for frame in stored]
    assert nearest[:25] == list(range(25)) and nearest == sorted(nearest) and len(set(nearest)) > 45
    error = [np.abs(frame - pictures[i]).mean() for i, frame in zip(nearest, stored, strict=True)]
    assert max(error) < 1.2 * max(error[:25])  # as the undamaged ones


def test_a_stream_that_begins_without_a_key_frame(tmp_path: pathlib.Path) -> None:
    """As cut without being encoded anew: what cannot be decoded at the beginning is left out, and that is noted."""
    pictures = [grey(10 + 4 * i) for i in range(40)]
    path = write_video(tmp_path / "a.mkv", pictures, options={"g": "10", "bf": "0"}, pix_fmt="yuv420p")
    with av.open(str(path)) as source, av.open(str(tmp_path / "b.mkv"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in list(source.demux(video=0))[4:-1]:
            packet.stream = stream
            target.mux(packet)
    clip = read(tmp_path / "b.mkv")
    assert levels(clip) == list(range(10, 39)) and "first 6 frames damaged and left out" in clip.notes


def test_memory_does_not_grow_with_the_file(tmp_path: pathlib.Path) -> None:
    """37 MB of pixels, in pieces of 0.9 MB."""
    pictures = [quadrants(48, 64, i) for i in range(64)]
    path = write_video(tmp_path / "a.mp4", [pictures[i % 64] for i in range(4000)], 24, pix_fmt="yuv420p")
    source, options, clips = (
        Input("a.mp4", "train", str(path), captions={"caption": "a test"}),
        Options(max_frames=97),
        0,
    )
    tracemalloc.start()
    for outcome in file_clips("test", source, options):
        clips += isinstance(outcome, Clip)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert clips == 42 and peak < 5_000_000


def test_media_tells_times_before_decoding(tmp_path: pathlib.Path) -> None:
    media = open_media(str(write_video(tmp_path / "a.mp4", [grey(50)] * 24, 24, options={"bf": "2"})))
    np.testing.assert_allclose(media.times - media.times[0], np.arange(24) / 24, atol=1e-3)
    assert (media.height, media.width, media.rate) == (48, 64, 24.0)


def ranges(outcomes) -> list[tuple[int, int]]:
    """First and last frame of each piece, by its name."""
    found = [re.search(r"\[(\d+), (\d+)\)", outcome.item) for outcome in outcomes if not isinstance(outcome, Cut)]
    return [(int(each[1]), int(each[2])) for each in found if each]


@pytest.mark.parametrize("length", [1, 5, 9])
def test_ranges_count_frames_of_the_file_and_never_pass_its_end(tmp_path: pathlib.Path, length: int) -> None:
    """Of a file whose frames are put on a grid that has more points than it has frames."""
    steps = [*range(20), *range(26, 40)]
    path = write_video(tmp_path / "a.mkv", [grey(10 + 4 * i) for i in range(34)], 10, times=[i / 10 for i in steps])
    *pieces, cut = read_all(path, max_frames=length)
    assert cut.shape_before == (34, 48, 64)
    assert len({piece.item for piece in pieces}) == len({piece.id for piece in pieces}) == len(pieces)
    found = ranges(pieces)
    assert found[0][0] == 0 and found[-1][1] == 34
    assert all(0 <= first < end <= 34 for first, end in found)
    assert all(before[1] in (after[0], after[0] + 1) for before, after in itertools.pairwise(found))
    for piece, (first, end) in zip(pieces, found, strict=True):
        assert piece.shape_before[0] == end - first
        assert set(levels(piece)) <= set(range(first, end))
    assert sum(len(levels(piece)) for piece in pieces) >= 34 - 3 * len(pieces)


def test_two_frames_at_one_time_are_one_in_the_ledger(tmp_path: pathlib.Path) -> None:
    """Four of 24 frames come 4 ms after the ones before them; with --shots every piece has a range."""
    times = sorted([*(i / 25 for i in range(20)), *(i / 25 + 0.004 for i in (3, 8, 12, 19))])
    path = write_video(tmp_path / "a.mkv", [grey(50 + i) for i in range(24)], 25, times=times, options={"bf": "0"})
    (piece,) = read_all(path, shots=True)
    assert ranges([piece]) == [(0, 20)] and piece.shape_before[0] == 20


def test_frames_in_no_order_are_stored_in_theirs(tmp_path: pathlib.Path) -> None:
    cases = pathlib.Path(__file__).parents[2] / "io" / "media" / "cases"
    for name in ("x264_bf2.avi", "x264_remux.mp4"):
        clip = read(cases / name)
        assert isinstance(clip, Clip) and clip.video_TYXC.shape == (49, 120, 160, 3) and clip.shape_before[0] == 50
        video = clip.video_TYXC.astype(int)
        steps, skips = (np.abs(video[n:] - video[:-n]).mean(axis=(1, 2, 3)) for n in (1, 2))
        assert (steps[:-1] <= skips).all()


def test_notes_of_the_source_are_notes_of_the_clip(tmp_path: pathlib.Path) -> None:
    path = write_video(tmp_path / "a.mp4", [grey(50)] * 5)
    (clip,) = file_clips(
        "test", Input("a.mp4", "train", str(path), notes=("its caption is a list, not text",)), Options()
    )
    assert clip.notes == ("its caption is a list, not text", "no caption")
