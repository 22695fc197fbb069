"""Even motion whatever the time stamps: rates that are nearly right, pauses, dropped frames, animations."""

import pathlib

import numpy as np
import pytest
from make_files import grey, write_video
from PIL import Image

from vdit.io.media.media import Media, array_media
from vdit.io.media.opening import open_media
from vdit.io.media.timing import evened, plan_timing

CASES = pathlib.Path(__file__).parent / "cases"


def shown(media: Media, fps: float = 0.0) -> tuple[list[int], float]:
    """Which frame of the file is shown at each point, and how many points a second has."""
    timing = plan_timing(media, fps)
    numbers = [number for _, number, _ in evened(media, timing)]
    assert len(numbers) == timing.length or timing.even
    return numbers, timing.fps


def write_animation(path: pathlib.Path, delays: list[int]) -> Media:
    """An animation whose frames stay so many milliseconds."""
    frames = [Image.fromarray(grey(20 + 4 * i, 16, 16)) for i in range(len(delays))]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=delays, loop=0, lossless=True)
    return open_media(path)


def test_the_case_of_a_pause() -> None:
    numbers, fps = shown(open_media(CASES / "pause.gif"))
    assert fps == pytest.approx(20)
    assert numbers == [*range(20), *[20] * 10, *range(21, 40)]


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("pause", [110, 500, 520, 1000])
def test_pauses_of_animations_keep_the_time_and_every_frame(tmp_path: pathlib.Path, suffix: str, pause: int) -> None:
    delays = [*[50] * 15, pause, *[50] * 14]
    numbers, fps = shown(write_animation(tmp_path / f"a.{suffix}", delays))
    assert fps == pytest.approx(20) and sorted(set(numbers)) == list(range(30))
    assert len(numbers) / fps == pytest.approx(sum(delays) / 1000, abs=0.03)


def test_delays_that_are_rounded_are_even(tmp_path: pathlib.Path) -> None:
    numbers, fps = shown(write_animation(tmp_path / "a.webp", [33, 33, 34] * 8))
    assert fps == pytest.approx(30, rel=0.01) and numbers == list(range(24))


def test_uneven_throughout_goes_on_the_average(tmp_path: pathlib.Path) -> None:
    delays = [40, 200, 90, 300, 50, 400, 100, 60, 250]
    numbers, fps = shown(write_animation(tmp_path / "a.gif", delays))
    starts = np.cumsum([0, *delays[:-1]]) / 1000
    assert fps == pytest.approx(8 / starts[-1])
    assert numbers == [int(np.searchsorted(starts, k / fps + 1e-3, "right")) - 1 for k in range(9)]


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_pause_and_dropped_frames_of_a_video(tmp_path: pathlib.Path, suffix: str) -> None:
    steps = np.delete(np.arange(60), [7, 20, 21, *range(30, 45)])
    path = write_video(tmp_path / f"a.{suffix}", [grey(5 * i) for i in range(len(steps))], 25, times=steps / 25)
    numbers, fps = shown(open_media(path))
    assert fps == pytest.approx(25)
    assert numbers == [int(np.searchsorted(steps, k, "right")) - 1 for k in range(60)]


def test_jitter_and_a_pause_lose_no_frame() -> None:
    rng = np.random.default_rng(0)
    times = (np.arange(90) + rng.uniform(-0.2, 0.2, 90)) / 30
    times[40:] += 1.013
    media = array_media(np.zeros((90, 8, 8, 3), np.uint8), 30)
    numbers, fps = shown(Media(**{**vars(media), "times": times}))
    assert fps == pytest.approx(30, rel=0.01) and sorted(set(numbers)) == list(range(90))
    assert len(numbers) / fps == pytest.approx(times[-1] - times[0], abs=0.1)


@pytest.mark.parametrize(
    ("rate", "wanted", "step", "note"),
    [
        (30.05, 30, 1, "30.05 frames/s taken for 30"),
        (29.97, 30, 1, ""),
        (23.976, 24, 1, ""),
        (30, 29.97, 1, "30 frames/s taken for 29.97"),
        (24, 23.976, 1, "24 frames/s taken for 23.976"),
        (60.2, 30, 2, "30.1 frames/s taken for 30"),
        (30.4, 30, 2, ""),
        (24, 12, 2, ""),
        (25, 10, 3, ""),
    ],
)
def test_a_rate_just_above_the_wanted_one_counts_as_it(rate: float, wanted: float, step: int, note: str) -> None:
    timing = plan_timing(array_media(np.zeros((90, 8, 8, 3), np.uint8), rate), wanted)
    assert timing.step == step and timing.fps == pytest.approx(rate / step)
    assert timing.notes == tuple([f"kept 1 of {step} frames"] * (step > 1) + [note] * bool(note))


def test_the_case_of_a_phone() -> None:
    numbers, fps = shown(open_media(CASES / "phone3005.mp4"), 30)
    assert numbers == list(range(90)) and fps == pytest.approx(30.05, abs=0.01)
