"""What is written of a video: the requested file, a strip to look at, and a JSON that says how it was made."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from vdit import __version__
from vdit.config import Config
from vdit.config_dict import to_dict
from vdit.errors import UserError
from vdit.generation.prompts import SampleRequest
from vdit.generation.request import Settings
from vdit.io import video
from vdit.io.names import printable
from vdit.io.storage.failures import mend_of

LONGEST_NAME = 200
"""Bytes of a name, of the 255 that most file systems allow: files have longer names while they are written."""

LONGEST_PATH = 4000
"""The same of a whole path, which may have 4,096."""


def check_out(path: Path, flag: str = "--out", made: bool = False) -> None:
    """Raises UserError unless a video can be written to the path, in a folder that is there, or `made` before."""
    formats = ", ".join(video.FORMATS)
    if path.suffix not in video.FORMATS:
        raise UserError(f"{flag}={path} should be a file ending in one of {formats}, in a folder that exists")
    for part in path.parts:
        if len(os.fsencode(part)) > LONGEST_NAME:
            raise UserError(f"{flag}={part[:40]}... is a name of more than {LONGEST_NAME} bytes; give a shorter one")
    if len(os.fsencode(path.absolute())) > LONGEST_PATH:
        raise UserError(f"{flag}={str(path)[:40]}... is a path of more than {LONGEST_PATH} bytes; give a shorter one")
    folder = path.parent
    while made and not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f"{flag}={path} should be a file ending in one of {formats}, in a folder that exists")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{flag}={path} cannot be written: no permission to write to {folder}; name another place")


def made(path: Path) -> Path:
    """The path, once its folder is there.

    Raises:
      UserError: if the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; {mend_of(error) or 'name another place'}") from error
    return path


def about(
    sample: SampleRequest, given_size: tuple[int, int, int], fps: float, settings: Settings, run: dict[str, Any]
) -> dict:
    """How a video was made.

    Args:
      sample: what was requested.
      given_size: frames, height, width of the video.
      fps: its frame rate.
      settings: how it was denoised.
      run: of `run_about`.
    """
    frames, height, width = given_size
    wanted = {
        name: value for name, value in dataclasses.asdict(sample).items() if value not in ("", 0.0) and name != "out"
    }
    wanted |= {"prompt": sample.prompt, "seed": sample.seed, "mode": sample.mode}
    size = {"size": f"{width}x{height}", "frames": frames, "fps": fps}
    return {**wanted, **size, **dataclasses.asdict(settings), **run, "software": f"vdit {__version__}"}


def run_about(name: str, step: int, config: Config) -> dict[str, Any]:
    """The checkpoint a video comes from, and the first 16 hex digits of its config's SHA-256."""
    text = json.dumps(to_dict(config), sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"checkpoint": f"{name}@{step}", "checkpoint_step": step, "config_hash": digest}


def tags(values: dict[str, Any]) -> dict[str, str]:
    """The same as metadata of an mp4."""
    return {name: printable(value) if isinstance(value, str) else json.dumps(value) for name, value in values.items()}


def write_video(path: Path, video_TYXC: np.ndarray, fps: float, scale: int, values: dict[str, Any]) -> list[Path]:
    """Writes a video in the format of its name, a strip next to it (unless it is one) and the JSON.

    Returns:
      The files.

    Raises:
      UserError: if one cannot be written; what is there by then is complete.
    """
    if path.suffix == ".mp4":
        video.write_mp4(path, video_TYXC, fps, scale, tags(values))
    elif path.suffix == ".gif":
        video.write_gif(path, video_TYXC, fps, scale, json.dumps(values))
    elif path.suffix == ".npz":
        video.write_npz(path, video_TYXC, fps, values)
    return [path, *write_beside(path, video_TYXC, scale, values)]


def write_beside(path: Path, frames_TYXC: np.ndarray, scale: int, values: dict[str, Any]) -> list[Path]:
    """The strip of frames, or the image if there is one frame only, and the JSON."""
    picture, note = path.with_suffix(".png"), path.with_suffix(".json")
    one = frames_TYXC[0].repeat(scale, 0).repeat(scale, 1)
    video.write_png(picture, one if len(frames_TYXC) == 1 else video.strip(frames_TYXC, scale=scale))
    video.write_json(note, values)
    return [picture, note] if picture != path else [note]
