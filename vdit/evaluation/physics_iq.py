"""Motion masks of anybody's videos in the layout of the Physics-IQ benchmark.

Real videos are named ID_testing-videos_30FPS_VIEW_take-1_SCENE.mp4, two takes of every view of a scene; the generated
video of one is named by the four digits of its first take's ID (what follows is free). Of both the first `SECONDS`
are compared. Several seeds are several folders.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vdit.errors import UserError
from vdit.evaluation.metrics.motion_masks import MEASURES, REDUCTION, compare, motion, physics_iq, summary
from vdit.io.media.media import Media, Unreadable
from vdit.io.media.opening import open_media

SECONDS = 5
SLACK = 0.01
"""By how much frame rates may differ and still be called the same."""
REAL = re.compile(r"(\d{4})_testing-videos_[^_]+_([^_]+)_(take-[12])_(.+)\.mp4")


class Scene(NamedTuple):
    """Two takes of a view of a scene, and the generated videos that continue the first: one for each seed."""

    takes: tuple[Path, Path]
    made: tuple[Path, ...]


def scenes(made: Sequence[Path], real: Path) -> list[Scene]:
    """The scenes of a folder of real videos with their generated ones.

    Args:
      made: folders of generated videos, one for each seed.
      real: folder of real videos.

    Raises:
      UserError: if a folder is missing, or a real or generated video is.
    """
    for folder, flag in (*((folder, "--videos") for folder in made), (real, "--real")):
        if not folder.is_dir():
            raise UserError(f"{flag}={folder} is not a folder")
    takes: dict[tuple[str, str], dict[str, tuple[str, Path]]] = {}
    for path in sorted(real.glob("*.mp4")):
        if not (named := REAL.fullmatch(path.name)):
            raise UserError(f"{path} is not named ID_testing-videos_FPS_VIEW_take-N_SCENE.mp4, as real videos are")
        number, view, take, scene = named.groups()
        takes.setdefault((scene, view), {})[take] = number, path
    if not takes:
        raise UserError(f"--real={real} holds no .mp4; it should hold ID_testing-videos_FPS_VIEW_take-N_SCENE.mp4")
    found = []
    for (scene, view), both in takes.items():
        if len(both) < 2:
            raise UserError(f"{real} holds only {next(iter(both))} of {view} of {scene}; a score needs both takes")
        number, first = both["take-1"]
        found.append(Scene((first, both["take-2"][1]), tuple(_made(folder, number, first) for folder in made)))
    return found


def _made(folder: Path, number: str, take: Path) -> Path:
    """The generated video of a folder that continues a take."""
    fitting = sorted(folder.glob(f"{number}_*.mp4")) or sorted(folder.glob(f"{number}.mp4"))
    if len(fitting) != 1:
        raise UserError(f"{folder} holds {len(fitting)} videos named {number}_*.mp4, for {take.name}; it should hold 1")
    return fitting[0]


def evaluate_folders(
    made: Sequence[Path], real: Path, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """The four measures and the score of generated videos.

    Args:
      made, real: as of `scenes`.
      progress: called with (scenes done, scenes in all).

    Returns:
      The `summary` of the measures over scenes and seeds, "between_takes": the same measures of the second takes, and
      "physics_iq": "score", that of each seed, and their spread.

    Raises:
      UserError: if videos are missing, cannot be read, or differ in frame rate or length.
    """
    found_SE: list[list[dict[str, float]]] = [[] for _ in made]
    between: list[dict[str, float]] = []
    listed = scenes(made, real)
    for done, scene in enumerate(listed, 1):
        first = _open(scene.takes[0])
        size = first.height // REDUCTION, first.width // REDUCTION
        count = min(len(first.times), round(SECONDS * first.rate))
        true = motion(_frames(first, scene.takes[0], count), size)
        for path, values in ((scene.takes[1], between), *zip(scene.made, found_SE, strict=True)):
            media = _open(path)
            _check(media, path, first, scene.takes[0], count)
            values.append(compare(motion(_frames(media, path, count), size), true))
        progress(done, len(listed))
    takes = {name: float(np.mean([values[name] for values in between])) for name in MEASURES}
    if lacking := [name for name in MEASURES if name != "mse" and not takes[name]]:
        raise UserError(f"the two takes of {real} share no motion ({lacking[0]} is 0), so there is no score")
    out = summary(found_SE)
    scores = [physics_iq({name: out[name]["seeds"][i] for name in MEASURES}, takes) for i in range(len(made))]
    score: dict[str, Any] = {"score": float(np.mean(scores)), "seeds": scores}
    if len(scores) > 1:
        score["spread"] = float(np.std(scores, ddof=1))
    return {**out, "between_takes": takes, "physics_iq": score, "scenes": len(listed)}


def _open(path: Path) -> Media:
    try:
        return open_media(path)
    except Unreadable as error:
        raise UserError(f"{path} cannot be read as a video: {error}") from error


def _check(media: Media, path: Path, first: Media, take: Path, count: int) -> None:
    """Raises UserError unless a video can be compared with the first take frame by frame."""
    if abs(media.rate / first.rate - 1) > SLACK:
        raise UserError(
            f"{path} has {media.rate:g} frames/s, {take} {first.rate:g}; give --real at the rate of --videos"
        )
    if len(media.times) < count:
        raise UserError(f"{path} has {len(media.times)} frames, {count} of {take} are compared ({SECONDS} s at most)")


def _frames(media: Media, path: Path, count: int) -> Iterator[np.ndarray]:
    """The first frames at their own size, uint8."""
    try:
        for number, frame in enumerate(media.frames()):
            if number == count:
                return
            if frame.problem:
                raise Unreadable(f"frame {number} {frame.problem}")
            yield frame.rgb(media.height, media.width)
    except Unreadable as error:
        raise UserError(f"{path} cannot be read: {error}") from error
