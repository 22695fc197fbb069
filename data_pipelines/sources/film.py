"""Source `film`: the shots of Big Buck Bunny, with two captions each.

The film comes inside a Python package and is checked by SHA-256; captions and licence are in `bunny/`.
"""

from __future__ import annotations

import csv
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from data_pipelines.media.clip import Clip, Cut, Input, Options, Outcome, Rejection, limited, stable_id
from data_pipelines.media.filters import SUBJECT_MEASURES
from data_pipelines.media.ranges import VideoInfo, decode_ranges, probe
from data_pipelines.media.sizes import aspect_change, fit_size
from vdit.errors import UserError
from vdit.io.packages import fetch_package, sha256_of

LICENCE = "CC-BY 3.0; (c) copyright 2008, Blender Foundation / www.bigbuckbunny.org"
CAPTIONS = ("short", "detailed")
SPLITS = ("train", "val")
MAX_TOKENS = 45
"""Default limit: 9 x 5 patches of 8 pixels, 72x40, whose aspect ratio is within 1.3% of the film's."""
FPS = 12.0
RUN = 8
"""Shots that are decoded in one go."""
_WEIGHT = 16 << 20
"""Of such a run: a job has four."""

PACKAGE = "moviepy==2.2.1"
MEMBER = (
    "docs/_static/medias/getting_started/moviepy_10_minutes/moviepy_10_minutes.zip!moviepy_10_minutes/resources/bbb.mp4"
)
SHA256 = "475fbbf34c4c367998f80c29ea03b15a743941179b12da3373fc6706e68621d0"
CAPTIONS_FILE = pathlib.Path(__file__).parent / "bunny" / "captions.csv"


@dataclasses.dataclass(frozen=True)
class Shot:
    """A row of captions.csv; frames are half-open and count from 0 in decode order.

    `subject_box` is (x0, y0, x1, y1) in 0..1 from the top left, of the main subject in the frame in the middle of the
    shot; NaN where there is none.
    """

    number: int
    start_frame: int
    end_frame: int
    split: str
    camera: str
    subject_box: tuple[float, float, float, float]
    captions: dict[str, str]

    @property
    def item(self) -> str:
        return f"shot {self.number:03d} [{self.start_frame}, {self.end_frame})"


def film_path(path: str) -> pathlib.Path:
    """The checked film file: the user's, or fetched.

    Raises:
      UserError: if it cannot be had or is another file.
    """
    if not path:
        return fetch_package(PACKAGE, {MEMBER: SHA256}, no_binary=True)[0]
    if not pathlib.Path(path).is_file():
        raise UserError(f"--film={path} does not exist; leave the flag out to fetch the film")
    if (found := sha256_of(path)) != SHA256:
        raise UserError(f"--film={path} has sha256 {found}, not {SHA256}; leave the flag out to fetch the film")
    return pathlib.Path(path)


def load_shots(path: pathlib.Path = CAPTIONS_FILE) -> list[Shot]:
    """Reads the shot list.

    Raises:
      UserError: if a row is not as `bunny/README.md` says.
    """
    shots: list[Shot] = []
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), start=2):
            try:
                shots.append(_shot(row))
                after = shots[-2].end_frame if len(shots) > 1 else 0
                if not after <= shots[-1].start_frame < shots[-1].end_frame:
                    raise ValueError(f"frames do not follow {after}")
            except (KeyError, ValueError, TypeError) as error:
                raise UserError(f"{path} row {line} is not a shot ({error}); see README.md beside it") from error
    return shots


def _shot(row: dict[str, str]) -> Shot:
    box = [float(value) for value in row["subject_box"].split(",")] if row["subject_box"] else [np.nan] * 4
    x0, y0, x1, y1 = box
    if row["split"] not in SPLITS:
        raise ValueError(f"split {row['split']!r}")
    return Shot(
        number=int(row["shot"]),
        start_frame=int(row["start_frame"]),
        end_frame=int(row["end_frame"]),
        split=row["split"],
        camera=row["camera"],
        subject_box=(x0, y0, x1, y1),
        captions={kind: row[kind] for kind in CAPTIONS},
    )


def inputs(options: Options) -> list[Input]:
    """Runs of shots.

    Raises:
      UserError: if the film cannot be had, or not with the wanted frame rate or size.
    """
    path = film_path(options.film)
    info = probe(path)
    _step(info.fps, options.fps)
    _size(info, options)
    shots = limited(load_shots(), options.limit)
    runs = _runs(shots)
    return [
        Input(
            f"shots {', '.join(str(shots[i].number) for i in run)}", shots[run[0]].split, str(path), _WEIGHT, data=run
        )
        for run in runs
    ]


def _runs(shots: Sequence[Shot]) -> list[tuple[int, ...]]:
    """Positions of shots that are decoded in one go: all of one split, those of validation, which lie apart, alone."""
    training = [i for i, shot in enumerate(shots) if shot.split == "train"]
    runs = [tuple(training[start : start + RUN]) for start in range(0, len(training), RUN)]
    return sorted(runs + [(i,) for i, shot in enumerate(shots) if shot.split != "train"])


def clips(options: Options, source: Input) -> Iterator[Outcome]:
    """Decodes a run of shots; see `shot_clips`."""
    shots = limited(load_shots(), options.limit)
    return shot_clips(pathlib.Path(source.path), [shots[i] for i in source.data], options)


def shot_clips(path: pathlib.Path, shots: Sequence[Shot], options: Options) -> Iterator[Outcome]:
    """Cuts a film into one clip per shot, or several of at most options.max_frames, which may overlap.

    Frames keep the film's aspect ratio up to the rounding of each side to patches. A shot is only shortened at its
    end, by fewer than patch.time kept frames; one that is cut into several clips is not shortened.

    Raises:
      UserError: if the wanted frame rate or size cannot be had from this film.
    """
    info = probe(path)
    step = _step(info.fps, options.fps)
    height, width = _size(info, options)
    notes = [f"kept 1 of {step} frames"] if step > 1 else []
    change = aspect_change((info.height, info.width), (height, width)) - 1
    notes += [f"aspect ratio {change:+.1%}"] if abs(change) > 5e-4 else []
    ranges = [(shot.start_frame, shot.end_frame) for shot in shots]
    for shot, video_TYXC in zip(shots, decode_ranges(path, ranges, step, height, width), strict=True):
        before = (shot.end_frame - shot.start_frame, info.height, info.width)
        if len(video_TYXC) < -(-before[0] // step):
            yield Rejection(shot.item, shot.split, "the film ends before the shot does", before)
            continue
        pieces = _pieces(len(video_TYXC), options)
        for piece in pieces:
            yield _clip(shot, video_TYXC, piece, len(pieces) > 1, info.fps, step, before, notes)
        if len(pieces) > 1:
            yield Cut(shot.item, shot.split, f"cut into {len(pieces)} pieces, all of them stored", before, info.fps)


def _pieces(kept: int, options: Options) -> list[range]:
    """The kept frames of each clip of a shot: the last piece ends with the shot."""
    whole = options.patch.floor_frames(kept)
    most = options.patch.floor_frames(options.max_frames) if options.max_frames else whole
    if whole <= most:
        return [range(whole)]
    starts = [*range(0, kept - most, options.hop or most), kept - most]
    return [range(start, start + most) for start in starts]


def _size(info: VideoInfo, options: Options) -> tuple[int, int]:
    try:
        return fit_size(info.height, info.width, options.patch, options.max_tokens)
    except ValueError as error:
        raise UserError(f"--max_tokens={options.max_tokens}: {error}") from error


def _clip(
    shot: Shot,
    video_TYXC: np.ndarray,
    piece: range,
    is_cut: bool,
    native: float,
    step: int,
    before: tuple[int, int, int],
    notes: list[str],
) -> Clip:
    middle = ((shot.start_frame + shot.end_frame) // 2 - shot.start_frame) // step
    box = shot.subject_box if middle in piece else (np.nan,) * 4
    trimmed = 0 if is_cut else len(video_TYXC) - len(piece)
    where = [f"kept frames {piece.start}-{piece.stop - 1} of {len(video_TYXC)}"] if is_cut else []
    return Clip(
        item=f"{shot.item} from {piece.start}" if is_cut else shot.item,
        id=stable_id("film", SHA256, shot.number, *([piece.start] if piece.start else [])),
        split=shot.split,
        video_TYXC=video_TYXC[piece.start : piece.stop],
        fps=native / step,
        captions=shot.captions,
        extra={
            "shot": np.int32(shot.number),
            "camera": shot.camera,
            "subject_box": np.array(box, np.float32),
        },
        shape_before=before,
        fps_before=native,
        notes=(*notes, *where, *([f"last {trimmed} kept frames trimmed"] if trimmed else [])),
        known=dict(zip(SUBJECT_MEASURES, box, strict=True)),
    )


def _step(native: float, wanted: float) -> int:
    """Every how many-th frame gives the wanted rate."""
    step = round(native / wanted) if wanted else 1
    if step < 1 or (wanted and abs(native / step - wanted) > 1e-3):
        raise UserError(f"--fps={wanted:g} is not the film's {native:g} divided by a whole number; try {native / 2:g}")
    return step
