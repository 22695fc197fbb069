"""The film source, on a small film made for it."""

import pathlib
from fractions import Fraction

import av
import numpy as np
import pytest

from data_pipelines.media.clip import Clip, Cut, Options, Rejection, limited
from data_pipelines.media.ranges import decode_ranges, probe
from data_pipelines.sources import film
from vdit.errors import UserError
from vdit.io.media.videos import Scaler
from vdit.patches import Patch

FRAMES, HEIGHT, WIDTH = 110, 72, 128
CAPTION = {"short": "a grey wall", "detailed": "a wall that gets brighter"}


def shot(number: int, start: int, end: int, split: str = "train") -> film.Shot:
    return film.Shot(number, start, end, split, "static", (0.0, 0.0, 0.5, 0.5), CAPTION)


@pytest.fixture(scope="module")
def movie(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A film whose frame i is grey 16 + 2 i, with B frames, so that decode order is not file order."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(24), options={"bf": "2", "crf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            image = np.full((HEIGHT, WIDTH, 3), 16 + 2 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


def numbers(video_TYXC: np.ndarray) -> list[int]:
    """Which frames of the film these are."""
    return [round(grey) for grey in (video_TYXC.mean(axis=(1, 2, 3)) - 16) / 2]


def test_ranges_are_frame_exact(movie: pathlib.Path) -> None:
    assert probe(movie) == (HEIGHT, WIDTH, 24.0)
    ranges = [(0, 3), (3, 10), (50, 51), (90, 130), (200, 210)]
    found = [numbers(v) for v in decode_ranges(movie, ranges, 2, 16, 24)]
    wanted = [range(0, 3, 2), range(3, 10, 2), [50], range(90, FRAMES, 2), []]
    assert found == [list(w) for w in wanted]


def test_area_scaling_keeps_colour_resolution() -> None:
    """Against exact block means of a picture whose colour changes from block to block."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (10, 18, 3), dtype=np.uint8)
    large = av.VideoFrame.from_ndarray(blocks.repeat(16, axis=0).repeat(16, axis=1), "rgb24").reformat(format="yuv420p")
    error = Scaler()(large, 10, 18).astype(float) - blocks
    assert np.abs(error).mean() < 3  # straight to rgb24 the mean is above 30


def test_a_shot_is_a_clip(movie: pathlib.Path) -> None:
    shots = [shot(0, 2, 40), shot(1, 40, 49, "val"), shot(2, 100, 140)]
    first, second, last = film.shot_clips(movie, shots, Options(Patch(), max_tokens=45, fps=12))
    assert isinstance(first, Clip) and isinstance(second, Clip)
    assert first.video_TYXC.shape == (17, 40, 72, 3) and first.fps == 12
    assert numbers(first.video_TYXC) == list(range(2, 35, 2))  # 19 kept, cut to 1 + 4k at the end only
    assert numbers(second.video_TYXC) == [40, 42, 44, 46, 48]
    assert (first.split, second.split) == ("train", "val") and first.captions == CAPTION
    assert first.shape_before == (38, HEIGHT, WIDTH)
    assert first.notes == ("kept 1 of 2 frames", "aspect ratio +1.2%", "last 2 kept frames trimmed")
    assert second.notes == first.notes[:2]
    assert first.extra["shot"] == 0 and first.extra["camera"] == "static"
    np.testing.assert_array_equal(first.extra["subject_box"], np.array([0, 0, 0.5, 0.5], np.float32))
    assert isinstance(last, Rejection) and "ends before" in last.reason


def test_pieces_of_a_shot_cover_it(movie: pathlib.Path) -> None:
    """19 kept frames in pieces of 9: each begins `hop` later, the last ends with the shot; a short shot stays whole."""
    shots = [shot(0, 2, 40), shot(1, 40, 60)]
    for hop, starts in ((0, [0, 9, 10]), (4, [0, 4, 8, 10])):
        options = Options(Patch(), max_tokens=45, fps=12, max_frames=12, hop=hop)  # 12 is no length of a clip: 9 is
        *clips, cut, short = film.shot_clips(movie, shots, options)
        pieces = [clip for clip in clips if isinstance(clip, Clip)]
        assert [numbers(piece.video_TYXC) for piece in pieces] == [
            list(range(2 + 2 * s, 20 + 2 * s, 2)) for s in starts
        ]
        assert isinstance(cut, Cut) and cut.reason == f"cut into {len(starts)} pieces, all of them stored"
        assert isinstance(short, Clip) and len(short.video_TYXC) == 9 and short.item == shots[1].item
        assert len({piece.id for piece in pieces}) == len({piece.item for piece in pieces}) == len(starts)
        (whole,) = (c for c in film.shot_clips(movie, shots[:1], Options(Patch(), max_tokens=45, fps=12)))
        assert isinstance(whole, Clip) and whole.id == pieces[0].id
        boxed = [not np.isnan(piece.extra["subject_box"]).any() for piece in pieces]  # the box is of kept frame 9
        assert boxed == [9 in range(s, s + 9) for s in starts]


def test_native_size_and_rate(movie: pathlib.Path) -> None:
    (clip,) = film.shot_clips(movie, [shot(0, 10, 15)], Options(Patch()))
    assert isinstance(clip, Clip) and clip.video_TYXC.shape == (5, 72, 128, 3) and clip.fps == 24
    assert clip.notes == () and numbers(clip.video_TYXC) == [10, 11, 12, 13, 14]


def test_options_that_cannot_be_had(movie: pathlib.Path) -> None:
    for fps in (7, 48):
        with pytest.raises(UserError, match=f"--fps={fps} .*try 12"):
            list(film.shot_clips(movie, [shot(0, 0, 9)], Options(Patch(), fps=fps)))


def test_unreadable_films_are_user_errors(tmp_path: pathlib.Path, movie: pathlib.Path) -> None:
    for name, data in (("text.mp4", b"not a film"), ("cut.mp4", movie.read_bytes()[:3000])):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match=f"{name} is not a readable video"):
            probe(tmp_path / name)


def test_another_file_is_not_the_film(tmp_path: pathlib.Path, movie: pathlib.Path) -> None:
    with pytest.raises(UserError, match=r"--film=.* has sha256 .* leave the flag out"):
        film.film_path(str(movie))
    with pytest.raises(UserError, match="does not exist"):
        film.film_path(str(tmp_path / "nowhere.mp4"))


def test_the_captions() -> None:
    shots = film.load_shots()
    assert [s.number for s in shots] == list(range(127))
    assert sum(s.end_frame - s.start_frame for s in shots) == 11_622
    assert sum(s.split == "val" for s in shots) == 13
    assert all(set(s.captions) == {"short", "detailed"} and all(s.captions.values()) for s in shots)
    boxes = np.array([s.subject_box for s in shots])
    boxes = boxes[~np.isnan(boxes[:, 0])]
    assert len(boxes) > 80 and (boxes[:, :2] < boxes[:, 2:]).all() and boxes.min() >= 0 and boxes.max() <= 1


def test_limit_keeps_a_share_of_each_split() -> None:
    shots = film.load_shots()
    for limit, val in ((1, 1), (57, 6), (114, 13), (0, 13), (1000, 13)):
        kept = limited(shots, limit)
        assert sum(s.split == "val" for s in kept) == val
        assert sum(s.split == "train" for s in kept) == min(limit or 114, 114)
        assert [s.number for s in kept] == sorted(s.number for s in kept)


def test_damaged_captions_name_the_row(tmp_path: pathlib.Path) -> None:
    lines = film.CAPTIONS_FILE.read_text(encoding="utf-8").splitlines()
    path = tmp_path / "captions.csv"
    for row, bad in (
        (3, lines[2].replace(",285,", ",x,")),
        (2, lines[1].replace("train", "test")),
        (3, lines[1]),
        (2, "7"),
    ):
        damaged = [*lines[:4]]
        damaged[row - 1] = bad
        path.write_text("\n".join(damaged), encoding="utf-8")
        with pytest.raises(UserError, match=f"row {row} is not a shot"):
            film.load_shots(path)
