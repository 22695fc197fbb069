"""Ways to prompt: from files and flags to which pixels are given.

Every way ends in the same thing, a video with a mask of given pixels. Frames that are given at the start are 1 + k p_t,
elsewhere whole groups of p_t frames, a single frame being repeated to fill its group (p_t is patch.time).
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vdit.config_dict import build
from vdit.errors import UserError
from vdit.generation.request import MAX_PATCHES, check_denoising
from vdit.io.media.clips import GivenClip, open_clip, open_image
from vdit.io.names import expand_home
from vdit.patches import Patch

FILE_FIELDS = ("image", "last", "head", "tail", "connect", "edit", "mask", "reference")
"""Fields of a `SampleRequest` that name files."""

_BOX = re.compile(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})")

MAX_SEED = 2**63 - 1
MAX_FRAMES = 10**6

CONTEXT = 3
"""Clips that are connected give at most one in so many groups each, so that the rest is left to generate."""


@dataclasses.dataclass(frozen=True)
class SampleRequest:
    """What a user requests; None or "" leaves a field to its default. Fields are named like the flags of vdit.sample.

    Attributes:
      prompt, negative: captions to follow and to keep away from.
      size: "WxH" in pixels; default: the one size that the model was trained on, if it was one, else that of what is
        given, else 32x32.
      frames: length, 1 + k p_t.
      seed: of the noise, from 0 to `MAX_SEED`.
      image, last: files of the first and the last frame.
      head, tail: clips that the video starts and ends with.
      loop: whether the last frame leads back to the first; without `image` one is made first.
      connect: "A,B", two clips: from the end of A to the start of B.
      edit: a clip to change; strength: how much, in (0, 1].
      mask: what to generate of `edit`: a box "X0,Y0,X1,Y1" in pixels of the clip, or a file that is white there.
      reference: images of what to show, separated by commas.
      stagger: see `Request.stagger`.
      out: name of the file; of --prompts only.

    Raises:
      UserError: for a value out of range, text that is not valid Unicode, or fields that contradict each other.
    """

    prompt: str = ""
    negative: str = ""
    size: str = ""
    frames: int = 17
    seed: int = 0
    image: str = ""
    last: str = ""
    head: str = ""
    tail: str = ""
    loop: bool = False
    connect: str = ""
    edit: str = ""
    strength: float = 1.0
    mask: str = ""
    reference: str = ""
    stagger: float = 0.0
    out: str = ""

    def __post_init__(self) -> None:
        self._check_values()
        for name, others in {
            "image": ("head", "connect", "edit"),
            "last": ("tail", "loop", "connect", "edit"),
            "loop": ("head", "tail", "connect", "edit"),
            "connect": ("head", "tail", "edit"),
            "edit": ("head", "tail"),
        }.items():
            clash = [other for other in others if getattr(self, other)]
            if getattr(self, name) and clash:
                raise UserError(f"--{name} and --{clash[0]} say different things about the same frames; leave one out")
        if self.mask and not self.edit:
            raise UserError("--mask says what to generate of a clip; name the clip with --edit")
        if self.strength != 1 and not self.edit:
            raise UserError("--strength says how much of a clip to change; name the clip with --edit")
        if self.frames == 1 and (self.loop or self.last or self.tail or self.connect):
            raise UserError("--frames=1 is an image, which has one frame only; ask for more frames")

    def _check_values(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise UserError(f"--seed={str(self.seed)[:25]} is not from 0 to {MAX_SEED}")
        if abs(self.frames) > MAX_FRAMES:
            raise UserError(f"--frames={str(self.frames)[:25]} is not from 1 to {MAX_FRAMES}")
        check_denoising(self.strength, self.stagger)
        for name in ("prompt", "negative", "out", *FILE_FIELDS):
            text = getattr(self, name)
            try:  # names of files may hold bytes that are no UTF-8
                text.encode() if name in ("prompt", "negative") else os.fsencode(text)
            except UnicodeEncodeError as error:
                raise UserError(f"--{name} holds half of a surrogate pair, not a character ({error})") from error
            if "\0" in text:
                raise UserError(f"--{name} holds a NUL character; leave it out")

    @property
    def mode(self) -> str:
        """What this way of prompting is called."""
        ends = (
            "image" if self.image else "head" if self.head else "",
            "last" if self.last else "tail" * bool(self.tail),
        )
        names = {
            ("", ""): "text" if self.frames > 1 else "image",
            ("image", ""): "first_frame",
            ("", "last"): "last_frame",
            ("image", "last"): "first_last",
        }
        mode = names.get(ends, "_".join(filter(None, ends)))
        for name in ("loop", "connect", "edit"):
            if getattr(self, name):
                mode = "inpaint" if name == "edit" and self.mask else name
        return mode + "+reference" * bool(self.reference)


def read_sample_requests(path: Path, defaults: Mapping[str, Any], out: Path, files: str = "") -> list[SampleRequest]:
    """The requests in a file, one JSON object of fields of `SampleRequest` a line.

    Args:
      path: the file; empty lines are skipped.
      defaults: values of the fields that a line leaves out.
      out: folder of the videos; without a name of its own, one is called after its line, 0001.mp4 and so on.
      files: folder below which the files that lines name must lie; empty = that of `path`.

    Raises:
      UserError: for a file that cannot be read or is empty, a line that is no JSON object of known fields (naming it),
        an `out` that lies elsewhere or is there twice, or another file that lies elsewhere.
    """
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")  # other line ends may stand inside of strings
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--prompts={path} cannot be read: {error}") from error
    samples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            own = json.loads(line)
            if not isinstance(own, dict):
                raise UserError("not a JSON object")
            build({**defaults, **own}, SampleRequest)  # names and types
            sample = build(
                {**defaults, **_located(own, path.parent, Path(files) if files else path.parent)}, SampleRequest
            )
            if Path(expand_home(sample.out)).is_absolute() or ".." in Path(sample.out).parts:
                raise UserError(f"out={sample.out!r} lies outside of --out; give a name below it")
        except (UserError, ValueError, RecursionError) as error:  # not JSON, a number of 5,000 digits, or nested deeply
            raise UserError(f"line {number} of --prompts={path}: {error}") from error
        samples.append(dataclasses.replace(sample, out=str(out / (sample.out or f"{number:04d}.mp4"))))
    if not samples:
        raise UserError(f'--prompts={path} is empty; write one JSON object a line, such as {{"prompt": "..."}}')
    _check_outs(samples, path)
    return samples


def _check_outs(samples: Sequence[SampleRequest], path: Path) -> None:
    """Raises UserError if two videos, or the picture and the note beside them, would be one file."""
    before: dict[Path, str] = {}
    for sample in samples:
        stem = Path(sample.out).with_suffix("")
        if stem in before:
            both = (
                "an out file twice"
                if before[stem] == sample.out
                else f"{before[stem]} and {sample.out}, which share files"
            )
            raise UserError(f"--prompts={path} names {both}; give each a name of its own")
        before[stem] = sample.out


def _located(own: Mapping[str, Any], folder: Path, root: Path) -> dict[str, Any]:
    """The fields of a line, the files among them found from the folder of the prompts file.

    Raises:
      UserError: if a file is a URL or does not lie below `root`, wherever links lead.
    """
    fields = dict(own)
    for name in FILE_FIELDS:
        text = fields.get(name, "")
        if not text or (name == "mask" and _BOX.fullmatch(text)):
            continue
        parts = [expand_home(part) for part in (text.split(",") if name in ("connect", "reference") else [text])]
        for part in filter(None, parts):
            try:
                inside = "://" not in part and (folder / part).resolve().is_relative_to(root.resolve())
            except (OSError, ValueError, RuntimeError) as error:  # too long, NUL, links in a circle
                raise UserError(f"{name}={part!r} is not the name of a file: {error}") from error
            if not inside:
                raise UserError(f"{name}={part!r} does not lie below {root}; --prompt_files=DIR allows files below DIR")
        fields[name] = ",".join(str(folder / part) if part else "" for part in parts)
    return fields


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """The pixels that a request gives, brought to one size.

    Attributes:
      height, width, frames: of the video.
      head, tail: frames given at its start and its end, each may have none.
      edited: video to start from, of `frames` frames, if any.
      mask_TYX: True where `edited` is given exactly.
      references: images.
    """

    height: int
    width: int
    frames: int
    head: np.ndarray
    tail: np.ndarray
    edited: np.ndarray | None = None
    mask_TYX: np.ndarray | None = None
    references: tuple[np.ndarray, ...] = ()

    def fields(self) -> dict[str, Any]:
        """The fields of a `Request` that say what is given."""
        fields: dict[str, Any] = {"references": self.references, "edited_TYXC": self.edited}
        if self.mask_TYX is not None:
            return fields | {"given_TYXC": self.edited, "mask_TYX": self.mask_TYX}
        if not len(self.head) and not len(self.tail):
            return fields
        channels = self.head.shape[-1]
        video_TYXC = np.zeros((self.frames, self.height, self.width, channels), np.uint8)
        mask_TYX = np.zeros(video_TYXC.shape[:3], bool)
        for place, clip in ((slice(len(self.head)), self.head), (slice(self.frames - len(self.tail), None), self.tail)):
            if len(clip):
                video_TYXC[place], mask_TYX[place] = clip, True
        return fields | {"given_TYXC": video_TYXC, "mask_TYX": mask_TYX}


def parse_size(text: str, patch: Patch) -> tuple[int, int]:
    """(height, width) of "WxH".

    Raises:
      UserError: if it is malformed or not on the patch grid; the message names the nearest size that is.
    """
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text)
    if not match:
        raise UserError(f"--size={text} is not of the form WIDTHxHEIGHT, such as 40x32")
    height, width = int(match[2]), int(match[1])
    if height * width > MAX_PATCHES * patch.height * patch.width:
        raise UserError(
            f"--size={text} has more than the {MAX_PATCHES:,} patches that are sampled at once; "
            "ask for fewer frames or a smaller size"
        )
    if (height, width) != (near := _nearest(height, width, patch)):
        raise UserError(
            f"--size={text} is not a multiple of the {patch.width}x{patch.height} patch; take {near[1]}x{near[0]}"
        )
    return height, width


def check_frames(frames: int, patch: Patch) -> None:
    """Raises UserError unless frames is 1 + k * patch.time, naming the nearest that is."""
    if frames < 1 or (frames - 1) % patch.time:
        nearest = 1 + max(0, round((frames - 1) / patch.time)) * patch.time
        raise UserError(f"--frames={frames} is not 1 + k*{patch.time}; take {nearest}")


def read_conditioning(
    sample: SampleRequest, patch: Patch, fps: float, trained: tuple[int, int] | None = None
) -> Conditioning:
    """Reads the files of a request and brings them to one size.

    Args:
      sample: what is requested.
      patch: of the model.
      fps: frame rate of the video; clips of other rates are resampled.
      trained: rows and columns of the videos that the model was trained on, if all had one size.

    Raises:
      UserError: for a size or length off the grid, a file that cannot be read, or files that do not go together.
    """
    check_frames(sample.frames, patch)
    clips = {name: open_image(path, f"--{name}") for name in ("image", "last") if (path := getattr(sample, name))}
    clips |= {
        name: open_clip(path, fps, f"--{name}") for name in ("head", "tail", "edit") if (path := getattr(sample, name))
    }
    if sample.connect:
        parts = sample.connect.split(",")
        if len(parts) != 2 or not all(parts):
            raise UserError(
                f"--connect={sample.connect} is not two files separated by a comma, such as --connect=a.mp4,b.mp4"
            )
        clips |= {name: open_clip(part, fps, "--connect") for name, part in zip(("from", "to"), parts, strict=True)}
    height, width = _size(sample, clips, patch, trained)
    mask_TYX = _mask(sample, clips["edit"], (height, width), fps) if sample.mask else None
    for name, clip in clips.items():
        _check_aspect(clip, (height, width), f"--{name}" if name not in ("from", "to") else "--connect")
    if sample.edit:
        frames = patch.floor_frames(clips["edit"].frames)
        if mask_TYX is not None:
            mask_TYX = ~np.resize(mask_TYX, (frames, height, width)) if len(mask_TYX) == 1 else ~mask_TYX[:frames]
            if len(mask_TYX) < frames:
                raise UserError(f"--mask={sample.mask} has {len(mask_TYX)} frames, --edit {frames}; make it as long")
        edited = clips["edit"].first(frames).read(height, width)
        return Conditioning(height, width, frames, edited[:0], edited[:0], edited, mask_TYX, _references(sample, patch))
    head, tail = _ends(sample, clips, patch)
    given_frames = sum(clip.frames for clip in (head, tail) if clip)
    if given_frames >= sample.frames:
        given = " and ".join(
            f"--{name}" for name in ("image", "head", "last", "tail", "connect") if getattr(sample, name)
        )
        raise UserError(f"{given} have {given_frames} frames, the video has {sample.frames}; raise --frames")
    none = np.zeros((0, height, width, 3), np.uint8)
    read_head, read_tail = (clip.read(height, width) if clip else none for clip in (head, tail))
    return Conditioning(height, width, sample.frames, read_head, read_tail, references=_references(sample, patch))


def _ends(
    sample: SampleRequest, clips: Mapping[str, GivenClip], patch: Patch
) -> tuple[GivenClip | None, GivenClip | None]:
    """What is given at the start and at the end of the video."""
    head, tail = clips.get("image"), None
    if sample.head:
        head = clips["head"].first(patch.floor_frames(clips["head"].frames))
    if sample.last:
        tail = clips["last"].choose(np.zeros(patch.time, int))
    if sample.tail:
        tail = clips["tail"].choose(_whole_groups(clips["tail"].numbers_T, patch, from_start=False))
    if sample.connect:
        most = max(1, (sample.frames - 1) // patch.time // CONTEXT)
        before, after = clips["from"], clips["to"]
        head = before.choose(before.numbers_T[-min(patch.floor_frames(before.frames), patch.frames(most)) :])
        tail = after.choose(_whole_groups(after.numbers_T, patch, from_start=True)[: most * patch.time])
    return head, tail


def _nearest(height: int, width: int, patch: Patch) -> tuple[int, int]:
    """The nearest size on the patch grid."""
    return tuple(max(1, round(side / step)) * step for side, step in ((height, patch.height), (width, patch.width)))  # type: ignore[return-value]


def _size(
    sample: SampleRequest, clips: Mapping[str, GivenClip], patch: Patch, trained: tuple[int, int] | None
) -> tuple[int, int]:
    """(height, width): as requested, else as trained, else that of what is given, else 32x32, on the patch grid."""
    if sample.size:
        return parse_size(sample.size, patch)
    if trained and not sample.edit:
        return trained
    height, width = next(((clip.height, clip.width) for clip in clips.values()), (32, 32))
    return _nearest(height, width, patch)


def _check_aspect(clip: GivenClip, wanted: tuple[int, int], flag: str) -> None:
    stretch = (wanted[1] / wanted[0]) / (clip.width / clip.height)
    if not 0.8 < stretch < 1.25:
        raise UserError(
            f"--size={wanted[1]}x{wanted[0]} would stretch {flag} of {clip.width}x{clip.height} by {stretch:.2f}; "
            "take its aspect ratio"
        )


def _whole_groups(numbers_T: np.ndarray, patch: Patch, from_start: bool) -> np.ndarray:
    """Whole groups of a clip's start or end; a clip shorter than one repeats its frame at the other side."""
    if len(numbers_T) < patch.time:
        missing = patch.time - len(numbers_T)
        return np.pad(numbers_T, (0, missing) if from_start else (missing, 0), mode="edge")
    kept = len(numbers_T) // patch.time * patch.time
    return numbers_T[:kept] if from_start else numbers_T[-kept:]


def _mask(sample: SampleRequest, edited: GivenClip, size: tuple[int, int], fps: float) -> np.ndarray:
    """True where the clip is to be generated, mask_TYX of the wanted size; one frame stands for all."""
    height, width = edited.height, edited.width
    box = _BOX.fullmatch(sample.mask)
    if not box:
        clip = open_clip(sample.mask, fps, "--mask")
        _check_aspect(clip, size, "--mask")
        return clip.read(*size).mean(-1) > 127
    left, top, right, bottom = map(int, box.groups())
    if not (left < right <= width and top < bottom <= height):
        raise UserError(f"--mask={sample.mask} is not a box X0,Y0,X1,Y1 within --edit of {width}x{height}")
    mask_1YX = np.zeros((1, *size), bool)
    rows, columns = (
        slice(int(low * new / old), -int(-high * new // old))
        for low, high, old, new in ((top, bottom, height, size[0]), (left, right, width, size[1]))
    )
    mask_1YX[:, rows, columns] = True
    return mask_1YX


def _references(sample: SampleRequest, patch: Patch) -> tuple[np.ndarray, ...]:
    """Reference images, each at the nearest size on the patch grid."""
    clips = [open_image(path, "--reference") for path in sample.reference.split(",") if path]
    return tuple(clip.read(*_nearest(clip.height, clip.width, patch))[0] for clip in clips)
