"""A program of the user's that captions clips: it is told of frames, and answers with captions of several kinds.

It is started once for each encoder (once on this machine, once for each accelerator of a Ray cluster), reads a line of
JSON for each clip from its standard input

    {"id": "1234", "item": "a.mp4 [0, 97)", "fps": 24.0, "frames": ["/tmp/x/0.png", ...], "captions": {"caption": ""}}

and answers on its standard output with a line of JSON before it reads the next:

    {"id": "1234", "captions": {"short": "a dog", "detailed": "a brown dog runs over a lawn"}}

Answers are kept in the cache by program, clip and pictures: a build that was stopped asks for none of them again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import select
import shlex
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from vdit.errors import UserError
from vdit.io.files import cache_dir, write_json

PREFIX = "command:"

FRAMES = 8
"""Most frames of a clip that a program is told of, evenly spaced."""

ANSWER = 600.0
"""Seconds that an answer may take: the first one waits for the program to load its weights."""

LONGEST = 1 << 20
"""Bytes of an answer."""


@dataclasses.dataclass(frozen=True)
class CaptionRequest:
    """What a program is told of a clip.

    Attributes:
      id, item, fps: of the clip.
      frames_TYXC: some of its frames, uint8 RGB.
      captions: those that its source has.
    """

    id: int
    item: str
    fps: float
    frames_TYXC: np.ndarray
    captions: dict[str, str]


class Captioner:
    """A program that captions clips, one after another.

    Args:
      name: "command:" and a command line; "" = none.
      answer: seconds that an answer may take.
    """

    def __init__(self, name: str, answer: float = ANSWER) -> None:
        self._command, self._answer = check_captioner(name), answer
        self._process: subprocess.Popen[bytes] | None = None
        self._said: IO[bytes] | None = None
        self._kinds: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, request: CaptionRequest) -> dict[str, str]:
        """Captions by kind.

        Raises:
          UserError: if the program cannot be started, ends, hangs, or answers with something else than captions of the
            kinds of its first answer.
        """
        with self._lock:
            path = self._kept(request)
            try:
                captions = _captions(json.loads(path.read_bytes()), request)
            except (OSError, ValueError):
                captions = self._ask(request)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_json(path, {"id": str(request.id), "captions": captions})
            self._kinds = self._kinds or set(captions)
            if set(captions) != self._kinds:
                raise self._error(
                    f"gives {request.item} the kinds {sorted(captions)}, and {sorted(self._kinds)} before"
                )
            return captions

    def close(self) -> None:
        """Ends the program."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _kept(self, request: CaptionRequest) -> Path:
        program = hashlib.sha256("\0".join(self._command).encode()).hexdigest()[:16]
        clip = hashlib.sha256(f"{request.id} {request.frames_TYXC.shape}".encode())
        clip.update(np.ascontiguousarray(request.frames_TYXC).data)
        return cache_dir() / "captions" / program / f"{clip.hexdigest()[:32]}.json"

    def _ask(self, request: CaptionRequest) -> dict[str, str]:
        process = self._started()
        with tempfile.TemporaryDirectory(prefix="vdit-captions-") as folder:
            paths = [f"{folder}/{number}.png" for number in range(len(request.frames_TYXC))]
            for path, frame in zip(paths, request.frames_TYXC, strict=True):
                Image.fromarray(frame).save(path, compress_level=1)
            question = {"id": str(request.id), "item": request.item, "fps": request.fps, "frames": paths}
            line = json.dumps({**question, "captions": request.captions}).encode() + b"\n"
            try:
                assert process.stdin is not None
                process.stdin.write(line)
                process.stdin.flush()
                answer = self._line(process, request)
            except BrokenPipeError:
                raise self._ended(process, request) from None
        try:
            return _captions(json.loads(answer), request)
        except (ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())[:100]
            raise self._error(
                f"answers {answer[:60]!a} for {request.item}, which is no line of captions ({reason})"
            ) from error

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._said = tempfile.TemporaryFile()  # noqa: SIM115 (as long as the program runs)
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
                )
            except OSError as error:
                raise self._error(f"cannot be started ({error.strerror})") from error
        return self._process

    def _line(self, process: subprocess.Popen[bytes], request: CaptionRequest) -> bytes:
        """The next line that the program prints."""
        assert process.stdout is not None
        line, end = bytearray(), time.monotonic() + self._answer
        while not line.endswith(b"\n"):
            if not select.select([process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                self.close()
                raise self._error(f"gives no answer for {request.item} within {self._answer:g} s")
            if not (data := os.read(process.stdout.fileno(), LONGEST)):
                raise self._ended(process, request)
            line += data
            if len(line) > LONGEST:
                self.close()
                raise self._error(f"answers with more than {LONGEST} bytes for {request.item}")
        return bytes(line)

    def _ended(self, process: subprocess.Popen[bytes], request: CaptionRequest) -> UserError:
        status = process.wait()
        self._process = None
        said = b""
        if self._said is not None:
            with contextlib.suppress(OSError):
                self._said.seek(max(0, self._said.seek(0, os.SEEK_END) - 2000))
                said = self._said.read()
        last = (said.decode(errors="replace").strip().splitlines() or [""])[-1][:200]
        return self._error(f"ended with status {status} at {request.item}{': ' * bool(last)}{last}")

    def _error(self, what: str) -> UserError:
        command = shlex.join(self._command)[:100]
        return UserError(f"--captioner={PREFIX}{command} {what}; what is done is kept: mend it and start again")


def check_captioner(name: str) -> list[str]:
    """The command line of a captioner; empty if there is none.

    Raises:
      UserError: if it is not of a known kind.
    """
    if not name:
        return []
    try:
        command = shlex.split(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else []
    except ValueError as error:
        raise UserError(f"--captioner={name!r} is no command line ({error})") from error
    if not command:
        raise UserError(f"--captioner={name!r} should be {PREFIX} and a command line, as {PREFIX}'python caption.py'")
    return command


def _captions(answer: Any, request: CaptionRequest) -> dict[str, str]:
    """The captions of an answer; ValueError if it is something else."""
    if not isinstance(answer, dict) or answer.get("id") != str(request.id):
        raise ValueError(f'"id" is not {str(request.id)!r}')
    captions = answer.get("captions")
    if not isinstance(captions, dict) or not captions:
        raise ValueError('there are no "captions"')
    for kind, caption in captions.items():
        if not (kind.isidentifier() and isinstance(caption, str)):
            raise ValueError(f"the caption {kind!r} is no text of a kind with a plain name")
        caption.encode()  # UnicodeEncodeError is a ValueError
    return dict(sorted(captions.items()))
