"""From an open file to clips that fit the patch grid: scaled, thinned, cut, trimmed, and every change noted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from data_pipelines.media.bars import without_bars
from data_pipelines.media.clip import CLIP_BYTES, Clip, Cut, Input, Options, Outcome, Rejection, stable_id
from data_pipelines.media.filters import reject_reason
from data_pipelines.media.shots import ShotDetector
from data_pipelines.media.sizes import aspect_change, fit_size
from vdit.io.media.media import Frame, Media, Unreadable
from vdit.io.media.opening import open_media
from vdit.io.media.timing import Timing, evened, plan_timing

RECORD_BYTES = 1 << 30
"""A record, and so a clip, must stay well below the 2 GiB of a protocol buffer."""

_PROBLEMS = 3  # named in a reason


def file_clips(namespace: str, source: Input, options: Options) -> Iterator[Outcome]:
    """Everything that becomes of one file.

    Args:
      namespace: what ids are distinct within, together with the item's name.
      source: the file, on this machine.
      options: what is asked.

    Yields:
      Clips and rejections in the order of the file; a `Cut` at the end if it gave more than one.
    """
    try:
        media = open_media(source.path)
    except Unreadable as error:
        yield Rejection(source.item, source.split, str(error))
        return
    yield from media_clips(namespace, source, media, options)


def media_clips(namespace: str, source: Input, media: Media, options: Options) -> Iterator[Outcome]:
    """Everything that becomes of opened media; see `file_clips`."""
    before = (len(media.times), media.height, media.width)
    try:
        media = without_bars(media) if options.trim_bars else media
        if min(media.height, media.width) < options.min_side:
            raise Unreadable(f"{media.width}x{media.height} is smaller than --min_side={options.min_side}")
        height, width = fit_size(media.height, media.width, options.patch, options.max_tokens)
        timing = plan_timing(media, options.fps)
        most = _longest(height, width, options)
    except (Unreadable, ValueError) as error:
        yield Rejection(source.item, source.split, str(error), before)
        return
    yield from _Cutter(namespace, source, media, before[1:], timing, options, (height, width), most).run()


def _longest(height: int, width: int, options: Options) -> int:
    """Frames at which clips are split."""
    size = height * width * 3
    most = options.patch.floor_frames(options.max_frames or max(1, CLIP_BYTES // size))
    if most * size > RECORD_BYTES:
        raise Unreadable(f"{most} frames of {width}x{height} exceed 1 GiB; lower --max_frames or set --max_tokens")
    return most


@dataclasses.dataclass
class _Cutter:
    namespace: str
    source: Input
    media: Media
    size_before: tuple[int, int]
    timing: Timing
    options: Options
    size: tuple[int, int]
    most: int

    def run(self) -> Iterator[Outcome]:
        expected = self.timing.length
        ranged = self.options.shots or expected > self.most
        clips = pieces = 0
        for piece in self._pieces(min(self.most, expected) if self.timing.even else self.most):
            outcome = self._finish(piece, ranged)
            pieces += 1
            clips += isinstance(outcome, Clip)
            yield outcome
            del piece, outcome  # so that the next piece takes the same memory
        if not pieces:
            yield Rejection(self.source.item, self.source.split, "no frame can be decoded", self._before)
        if pieces > 1:
            yield Cut(
                self.source.item,
                self.source.split,
                f"cut into {pieces} pieces, {clips} of them stored",
                self._before,
                self.timing.fps_before,
            )

    @property
    def _before(self) -> tuple[int, int, int]:
        return len(self.timing.times), *self.size_before

    def _pieces(self, capacity: int) -> Iterator[_Piece]:
        """Cuts where a shot begins and where a clip is long enough. Cuts are looked for in frames left out, too."""
        step = self.timing.step if self.timing.even else 1
        detector = ShotDetector(self.timing.fps * step) if self.options.shots else None
        piece: _Piece | None = None
        beginning = 0  # of the shot
        damaged = 0  # frames at the beginning, as where a stream was cut without being encoded anew
        last = -1
        for place, number, frame, broken in self._frames():
            if broken:
                piece = piece or _Piece(place, number, np.empty((0, *self.size, 3), np.uint8))
                piece.problems.append(broken)
                break
            if frame.problem and number == damaged:
                beginning = damaged = number + 1
                continue
            kept = (number - beginning) % step == 0 if self.timing.even else True
            rgb = frame.rgb(*self.size) if kept or detector else None
            cut = detector.begins(rgb) if detector and rgb is not None else False
            if cut:
                beginning = number
            if rgb is None or not (kept or cut):
                if piece:
                    piece.pass_over(number, frame.problem)
                continue
            if piece and (cut or piece.length == self.most):
                yield piece
                piece = None
            if piece is None:
                piece = _Piece(place, number, np.empty((capacity, *self.size, 3), np.uint8), held=number == last)
                if number == damaged > 0:
                    piece.notes.append(f"first {damaged} frames damaged and left out")
            piece.add(number, rgb, frame.problem)
            last = number
        if piece:
            yield piece

    def _frames(self) -> Iterator[tuple[int, int, Frame, str]]:
        """The chosen frames; where the file breaks off a last entry says how."""
        place, number, frame = 0, 0, Frame(0.0, lambda *_: np.zeros(0))
        try:
            for place, number, frame in evened(self.media, self.timing):
                yield place, number, frame, ""
        except Unreadable as error:
            yield place, number, frame, str(error)

    def _finish(self, piece: _Piece, ranged: bool) -> Outcome:
        source, options, timing = self.source, self.options, self.timing
        item = f"{source.item} [{piece.first}, {piece.end})" if ranged else source.item
        if ranged and piece.held:  # the piece before may have the same range
            item += f" from {piece.place / timing.fps:.6g} s"
        frames = options.patch.floor_frames(piece.length)
        before = (piece.end - piece.first, *self.size_before) if ranged else self._before
        video = piece.video_TYXC[:frames]
        reason = "; ".join(piece.problems[:_PROBLEMS])
        if not reason and piece.length < options.min_frames:
            reason = f"{piece.length} frames are fewer than --min_frames={options.min_frames}"
        reason = reason or reject_reason(video, options.reject)
        if reason:
            return Rejection(item, source.split, reason, before, timing.fps_before)
        return Clip(
            item=item,
            id=stable_id(self.namespace, source.item, piece.place),
            split=source.split,
            video_TYXC=video,
            fps=timing.fps,
            captions=source.captions,
            shape_before=before,
            fps_before=timing.fps_before,
            known={"bits_per_pixel": self.media.bits_per_pixel},
            notes=(*self.media.notes, *timing.notes, *piece.notes, *self._changes(piece.length - frames)),
        )

    def _changes(self, trimmed: int) -> Iterator[str]:
        if self.size != (self.media.height, self.media.width):
            change = aspect_change((self.media.height, self.media.width), self.size) - 1
            if abs(change) > 5e-4:
                yield f"aspect ratio {change:+.1%}"
        if trimmed:
            yield f"last {trimmed} kept frames trimmed"
        yield from self.source.notes
        if not any(self.source.captions.values()):
            yield "no caption"


class _Piece:
    """Frames of one clip in the making.

    Args:
      place: of its first frame among those that are chosen, distinct.
      first: number of its first frame in the file.
      room_TYXC: where frames are put.
      held: whether the piece before ended while that frame was shown.
    """

    def __init__(self, place: int, first: int, room_TYXC: np.ndarray, held: bool = False) -> None:
        self.place, self.first, self.held = place, first, held
        self.end, self.length = first, 0
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._room = room_TYXC  # untouched pages of it cost no memory

    def pass_over(self, number: int, problem: str) -> None:
        """Takes note of a frame without keeping it."""
        self.end = number + 1
        if problem:
            self.problems.append(f"frame {number} {problem}")

    def add(self, number: int, rgb_YXC: np.ndarray, problem: str) -> None:
        """Appends a frame."""
        if self.length == len(self._room):  # of uneven videos the number of frames is not known before
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        self._room[self.length] = rgb_YXC
        self.length += 1
        self.pass_over(number, problem)

    @property
    def video_TYXC(self) -> np.ndarray:
        return self._room[: self.length]
